"""Prompt lookup on exported packages: the tokens, log-probabilities and endings that there are without it."""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
import edgellm_export
from comparison import prompt
from edgellm.decoding import prompt_lookup
from edgellm.decoding.prompt_lookup import Drafter
from edgellm.errors import OptionError
from edgellm.ort.kernels import library
from families import ENDING_OF_ALL_KINDS

# Float32's rounding reaches the log-probabilities: several tokens behind a past take another attention kernel than one.
LOGPROBS = 1e-4  # absolute
OPTIONS: list[dict[str, Any]] = [
    {"eos_token_id": []},
    {"do_sample": True, "seed": 3, "eos_token_id": []},
    {"repetition_penalty": 1.2, "min_new_tokens": 10},
]
COPYING = [
    "Repeat this text word for word:\n\n{}",
    "Fix the spelling mistakes in this text and write the whole corrected text:\n\n{}",
]


class Oracle(Drafter):
    """Drafts what will come, but for one token in six: long drafts, right and wrong, whatever the model is like."""

    coming: Sequence[int] = ()  # prompt and new tokens

    def draft(self, limit: int) -> list[int]:
        at = len(self.tokens)
        assert self.tokens == self.coming[:at]
        count = max(0, min(limit, 1 + at % 9))
        return [token if (at + i) % 6 else 7 for i, token in enumerate(self.coming[at : at + count])]


@pytest.mark.parametrize("name", ENDING_OF_ALL_KINDS)
def test_every_family(name: str, package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Across sliding windows and LongRoPE's switch, on ONNX Runtime's kernels."""
    monkeypatch.setattr(prompt_lookup, "Drafter", Oracle)
    check_family(edgellm.load(package(name), threads=1, kernels="off"), name, LOGPROBS)


@pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")
@pytest.mark.parametrize(
    ("precision", "kv_cache"), [("fp32", "auto"), ("int8", "auto"), ("int4", "auto"), ("int8", "bfloat16")]
)
@pytest.mark.parametrize("name", ENDING_OF_ALL_KINDS)
def test_exactly(
    name: str, precision: str, kv_cache: Any, package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On edgellm's kernels, with any cache: the tokens and the log-probabilities to the last bit."""
    if kv_cache == "bfloat16" and name.startswith("mamba2"):
        pytest.skip("has no keys and values")
    monkeypatch.setattr(prompt_lookup, "Drafter", Oracle)
    check_family(edgellm.load(package(name, precision), threads=1, kv_cache=kv_cache), name, 0)


@pytest.mark.parametrize("name", ["gpt2", "mistral-sliding", "qwen3", "phi3-longrope", "gemma2"])
def test_int8_with_an_int8_cache(
    name: str, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several tokens are rounded as one is, to the last bit, so that int8 weights have nothing to enlarge."""
    package = edgellm_export.export(
        checkpoint(name), tmp_path / "out", precision="int8", kv_cache="int8", verify_quality=False, calibrate=False
    ).path
    monkeypatch.setattr(prompt_lookup, "Drafter", Oracle)
    check_family(edgellm.load(package, threads=1), name, 0)


def check_family(model: edgellm.Model, name: str, tolerance: float) -> None:
    facts = model.manifest.model
    if facts.rope.changes_with_every_token or facts.cache.states is not None:
        with pytest.raises(OptionError, match=r"whose (rotary tables change with every token|states cannot forget)"):
            model.generate([5, 6], prompt_lookup=True)
        return
    for seed, options in enumerate(OPTIONS):
        options = {"max_new_tokens": 60, "logprobs": True, **options}
        ids = prompt(name, 12, seed).tolist()
        plain = model.generate(ids, **options)
        model.reset()
        Oracle.coming = [*ids, *plain.tokens]
        found = model.generate(ids, prompt_lookup=True, **options)
        assert (found.tokens, found.finish_reason) == (plain.tokens, plain.finish_reason), options
        np.testing.assert_allclose(found.logprobs, plain.logprobs, rtol=0, atol=tolerance)
        assert found.timing.accepted_tokens > 0.5 * len(found.tokens) - 6


@pytest.fixture(scope="module")
def copying(smollm2_package: Callable[[str], Path]) -> Callable[[edgellm.Model], list[list[int]]]:
    texts = [pydoc_data.topics.topics[topic][:600] for topic in ("naming", "while")]

    def prompts(model: edgellm.Model) -> list[list[int]]:
        asked = [request.format(text) for request, text in zip(COPYING, texts, strict=True)]
        chats = [model.chat_template.render([{"role": "user", "content": text}]) for text in asked]
        return [model.tokenizer.encode(chat).tolist() for chat in chats]

    return prompts


@pytest.mark.real_model
@pytest.mark.parametrize(
    "options", [{}, {"do_sample": True, "temperature": 0.7, "seed": 1}], ids=["greedy", "sampling"]
)
def test_real_model(
    options: dict[str, Any],
    smollm2_package: Callable[[str], Path],
    copying: Callable[[edgellm.Model], list[list[int]]],
) -> None:
    model = edgellm.load(smollm2_package("fp32"), device="cpu")
    runs, tokens = 0, 0
    for ids in copying(model):
        options = {"max_new_tokens": 48, "logprobs": True, **options}
        plain = model.generate(ids, **options)
        model.reset()
        found = model.generate(ids, prompt_lookup=True, **options)
        assert (found.tokens, found.finish_reason) == (plain.tokens, plain.finish_reason)
        np.testing.assert_allclose(found.logprobs, plain.logprobs, rtol=0, atol=1e-3)
        tokens += len(found.tokens)
        runs += len(found.tokens) - found.timing.accepted_tokens
    assert tokens > 1.3 * runs
