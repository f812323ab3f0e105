"""Any calls in any order: what a session says is what the model says of the same prompt without one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgellm
from edgellm import ContextOverflowError, OptionError
from tiny_package import TinyConfig

PackageMaker = Callable[[TinyConfig], Path]

CONFIGS = {"plain": TinyConfig(context_length=48), "two tables": TinyConfig(context_length=48, long_from=20)}
TEXT = [(41 * i) % 251 for i in range(60)]
WITHOUT_END: dict[str, Any] = {"eos_token_id": [], "logprobs": True}
WAYS: list[dict[str, Any]] = [
    {},
    {},
    {"prompt_lookup": True},
    {"num_beams": 3},
    {"do_sample": True, "seed": 1, "num_return_sequences": 2},
    {"overflow": "shift"},
    {"overflow": "truncate"},
]

numbers = st.integers(0, 47)
calls = st.one_of(
    st.tuples(st.just("generate"), numbers, st.sampled_from(WAYS)),
    st.tuples(st.just("continue"), numbers, st.sampled_from(WAYS)),
    st.tuples(st.just("close a stream"), numbers, st.sampled_from(WAYS[:3])),
    st.tuples(st.sampled_from(["prefill", "trim", "fork", "save and load", "reset"]), numbers, st.none()),
)


class Checked:
    """A session, and calls of it that are compared with the model's own."""

    def __init__(self, model: edgellm.Model, max_tokens: int | None) -> None:
        each = model.info.cache_bytes_per_token
        self.model = model
        self.session = model.session(max_bytes=None if max_tokens is None else max_tokens * each)

    def generate(self, prompt: list[int], options: dict[str, Any]) -> None:
        options = {**options, "max_new_tokens": 9, **WITHOUT_END}
        try:
            found = self.session.generate(prompt, **options)
        except (ContextOverflowError, OptionError):
            return
        if self.session.max_tokens < 48:  # the model has another limit
            assert self.session.nbytes <= (self.session.max_bytes or 0)
            if options.get("overflow") or len(found.tokens) < 9:
                return
        self.model.reset()
        expected = self.model.generate(prompt, **options)
        for mine, other in zip(found.sequences, expected.sequences, strict=True):
            assert mine.tokens == other.tokens
            np.testing.assert_allclose(mine.logprobs, other.logprobs, atol=1e-4)
        assert found.dropped_tokens == expected.dropped_tokens

    def close_a_stream(self, prompt: list[int], count: int, options: dict[str, Any]) -> None:
        try:
            stream = self.session.stream(prompt, max_new_tokens=9, **WITHOUT_END, **options)
        except ContextOverflowError:
            return
        for _, _ in zip(range(count % 6), stream, strict=False):
            pass
        stream.close()  # type: ignore[attr-defined]

    def change(self, what: str, number: int) -> None:
        held = self.session.tokens
        if what == "trim":
            self.session.trim(number)
            assert self.session.tokens == held[:number]
        elif what == "fork":
            before, self.session = self.session, self.session.fork()
            before.close()
        elif what == "reset":
            self.session.reset()
            assert self.session.tokens == ()
        elif what == "save and load":
            with tempfile.TemporaryDirectory() as folder:
                self.session.save(Path(folder) / "s")
                reusable = self.session.reusable_tokens
                self.session = self.model.load_session(Path(folder) / "s", max_bytes=self.session.max_bytes)
            assert self.session.reusable_tokens == reusable
        if what in ("fork", "save and load"):
            assert self.session.tokens == held


@pytest.fixture(scope="module")
def load(make_package: PackageMaker) -> Callable[[str], edgellm.Model]:
    return cache(lambda name: edgellm.load(make_package(CONFIGS[name]), threads=1, prefill_chunk=8))


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=30, deadline=None)
@given(steps=st.lists(calls, min_size=3, max_size=12), max_tokens=st.sampled_from([None, None, 30]))
def test_any_calls(
    load: Callable[[str], edgellm.Model], name: str, steps: list[tuple[str, int, Any]], max_tokens: int | None
) -> None:
    model = load(name)
    checked = Checked(model, max_tokens)
    for what, number, options in steps:
        prompt = TEXT[: 1 + number]
        if what == "generate":
            checked.generate(prompt, options)
        elif what == "continue":
            checked.generate([*checked.session.tokens[: number + 5], 7, number], options)
        elif what == "close a stream":
            checked.close_a_stream(prompt, number, options)
        elif what == "prefill" and len(prompt) < checked.session.max_tokens:
            assert checked.session.prefill(prompt) == len(prompt)
            assert checked.session.tokens == tuple(prompt)
        else:
            checked.change(what, number)
        if max_tokens is not None:
            assert checked.session.nbytes <= checked.session.max_bytes
    checked.generate([*checked.session.tokens[:30], 3, 4], {})
