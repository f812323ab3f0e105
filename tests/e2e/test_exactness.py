"""On edgellm's kernels a token's numbers are the same bits, however it is read and whatever is beside it: every family,
with every kind of weights and of cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgellm
from comparison import prompt
from edgellm.ort.kernels import library
from families import FAMILIES

pytestmark = pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")
TABLES_OF_LENGTHS = {
    "llama-dynamic",
    "phi3-longrope",
    "phimoe-longrope",
}  # a token's numbers depend on how long the text is
# A state is summed up in another order where a text is cut elsewhere.
NAMES = [family.name for family in FAMILIES if family.name not in TABLES_OF_LENGTHS and not family.remembers]
KINDS = [
    ("qwen3", "fp16", "auto"),
    *((name, precision, "auto") for name in NAMES for precision in ("fp32", "int8", "int4")),
    *((name, "int8", "bfloat16") for name in NAMES),
]
FREE: dict[str, Any] = {"eos_token_id": [], "logprobs": True}


def bits(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(logits, np.float32).view(np.uint32)


def read(model: edgellm.Model, texts: Sequence[Sequence[int]], given: int) -> npt.NDArray[np.float32]:
    """[rows, steps, vocab]: the logits behind the first tokens of each text, and then behind the last `given`, each."""
    engine = model.new_engine()
    rows = [np.array(text, np.int64) for text in texts]
    found = [engine.prefill([row[: len(row) - given] for row in rows]).copy()]
    found += [engine.decode(np.array([row[len(row) - given + i] for row in rows])).copy() for i in range(given)]
    return np.stack(found, 1)


@pytest.mark.parametrize(("name", "precision", "kv_cache"), KINDS)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.tuples(st.integers(66, 76), st.lists(st.integers(6, 90), max_size=3)).map(
        lambda each: [each[0], *each[1]]
    ),
    given=st.integers(1, 5),
    chunk=st.sampled_from([1, 3, 16, 64]),
    threads=st.integers(1, 2),
)
def test_batches_chunks_and_threads(
    name: str,
    precision: str,
    kv_cache: Any,
    lengths: list[int],
    given: int,
    chunk: int,
    threads: int,
    package: Callable[..., Path],
) -> None:
    """Each row beside the others is that text alone, read in one piece on one thread; one at least has several of the
    blocks of 64 keys that attention takes at a time, and a window across their border where there are windows."""
    path = package(name, precision)
    texts = [prompt(name, length, seed).tolist() for seed, length in enumerate(lengths)]
    found = read(edgellm.load(path, threads=threads, prefill_chunk=chunk, kv_cache=kv_cache), texts, given)
    alone = edgellm.load(path, threads=1, prefill_chunk=512, kv_cache=kv_cache)
    assert alone._loaded.is_exact
    for row, text in zip(found, texts, strict=True):
        assert (bits(row) == bits(alone.logits(text)[-given - 1 :])).all()


@pytest.mark.parametrize(("name", "precision", "kv_cache"), KINDS)
def test_the_next_turn(name: str, precision: str, kv_cache: Any, package: Callable[..., Path]) -> None:
    """Everything that was read and generated is taken over, and the answer is that of the whole as a prompt."""
    model = edgellm.load(package(name, precision), threads=1, kv_cache=kv_cache)
    text = prompt(name, 12).tolist()
    with model.session() as session:
        for turn in range(3):
            answer = session.generate(text, max_new_tokens=8, **FREE)
            model.reset()
            whole = model.generate(text, max_new_tokens=8, **FREE)
            assert (answer.tokens, answer.logprobs) == (whole.tokens, whole.logprobs)
            text += [*answer.tokens, 11 + turn]
            assert session.reusable_tokens == len(text) - 2


@pytest.mark.parametrize(("name", "precision", "kv_cache"), [kind for kind in KINDS if kind[0] == "qwen3"])
def test_a_batch_is_as_many_single_runs(name: str, precision: str, kv_cache: Any, package: Callable[..., Path]) -> None:
    model = edgellm.load(package(name, precision), threads=2, kv_cache=kv_cache)
    prompts = [prompt(name, length, length).tolist() for length in (5, 30, 12, 7, 21, 3, 40, 9)]
    together = model.generate(prompts, max_new_tokens=12, **FREE)
    for ids, found in zip(prompts, together, strict=True):
        alone = model.generate(ids, max_new_tokens=12, **FREE)
        assert (found.tokens, found.logprobs) == (alone.tokens, alone.logprobs)
