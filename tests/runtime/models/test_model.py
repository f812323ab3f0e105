"""The public calls, end to end on a tiny model, against the same model in plain numpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from edgellm import Model
from edgellm.engines.cached import chunks
from tiny_package import EOS, TinyConfig, greedy, reference_logits

PackageMaker = Callable[[TinyConfig], Path]

TINY = TinyConfig()
LONG = TinyConfig(long_from=24)
PROMPTS = [[1, 2, 3], list(range(40, 75)), [9], list(range(100, 117))]
TO_THE_LIMIT: dict[str, Any] = {"eos_token_id": []}


def assert_close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("config", [TINY, LONG], ids=["plain", "two-tables"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_greedy_tokens(make_package: PackageMaker, config: TinyConfig, prompt: list[int]) -> None:
    model = edgellm.load(make_package(config), threads=1, prefill_chunk=8)
    result = model.generate(prompt, max_new_tokens=20, **TO_THE_LIMIT)
    assert result.tokens == greedy(config, prompt, 20)
    assert result.finish_reason == "length"
    assert result.prompt_tokens == len(prompt)


@pytest.mark.parametrize("config", [TINY, LONG], ids=["plain", "two-tables"])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_logits_do_not_depend_on_the_chunk_size(make_package: PackageMaker, config: TinyConfig, chunk: int) -> None:
    tokens = np.arange(80) * 37 % 256
    logits = edgellm.load(make_package(config), prefill_chunk=chunk).logits(tokens)
    assert logits.dtype == np.float32
    assert_close(logits, reference_logits(config, tokens))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_logits_do_not_depend_on_the_threads(package: Path, threads: int) -> None:
    assert_close(edgellm.load(package, threads=threads).logits(list(range(60))), reference_logits(TINY, range(60)))


@pytest.mark.parametrize("config", [TINY, LONG], ids=["plain", "two-tables"])
def test_a_batch_gives_what_its_prompts_give_alone(make_package: PackageMaker, config: TinyConfig) -> None:
    """Rows of different lengths; with two tables, rows that change over at different times."""
    model = edgellm.load(make_package(config), threads=2, prefill_chunk=16)
    together = model.generate(PROMPTS, max_new_tokens=25, **TO_THE_LIMIT)
    assert [result.tokens for result in together] == [greedy(config, prompt, 25) for prompt in PROMPTS]


@pytest.mark.parametrize("config", [TINY, LONG], ids=["plain", "two-tables"])
def test_engine_logits_row_by_row(make_package: PackageMaker, config: TinyConfig) -> None:
    """Prefill, decode and reorder with more and fewer rows: every row's logits are those of its own tokens."""
    engine = edgellm.load(make_package(config), threads=1, prefill_chunk=5).new_engine()
    rows = [list(prompt) for prompt in PROMPTS]
    logits = engine.prefill([np.array(row) for row in rows])
    rng = np.random.default_rng(1)
    for parents in ([0, 1, 2, 3], [3, 3, 0], [2, 1, 0, 0, 1, 2], [5, 4], [1, 0], *([[0, 1]] * 20)):
        assert_close(logits, [reference_logits(config, row)[-1] for row in rows])
        engine.reorder(np.array(parents))
        rows = [list(rows[parent]) for parent in parents]
        new = rng.integers(0, 256, len(rows))
        for row, token in zip(rows, new.tolist(), strict=True):
            row.append(token)
        logits = engine.decode(new)
    assert_close(logits, [reference_logits(config, row)[-1] for row in rows])


def test_logits_of_a_step_are_the_callers(model: Model) -> None:
    engine = model.new_engine()
    first = engine.prefill([np.array([1, 2])])
    kept = first.copy()
    engine.decode(np.array([3]))
    np.testing.assert_array_equal(first, kept)


def test_a_cached_prefix_changes_nothing_but_the_work(package: Path) -> None:
    model = edgellm.load(package, threads=1, prefill_chunk=8)
    first = model.generate(list(range(30)), max_new_tokens=10, **TO_THE_LIMIT)
    for prompt in (
        [*range(30), *first.tokens, 5, 6],
        [*range(30)],
        [*range(20), 7, 7],
        [0],
        [200, 201],
    ):
        assert model.generate(prompt, max_new_tokens=10, **TO_THE_LIMIT).tokens == greedy(TINY, prompt, 10)


def test_the_next_turn_computes_only_what_is_new(package: Path) -> None:
    model = edgellm.load(package, threads=1, prefill_chunk=2)
    first = model.generate(list(range(30)), max_new_tokens=5, **TO_THE_LIMIT)
    seen: list[tuple[int, int]] = []
    turn = [*range(30), *first.tokens, 8, 9, 10]
    model.generate(turn, max_new_tokens=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(36, 38), (38, 38)]
    model.reset()
    seen.clear()
    model.generate(turn, max_new_tokens=1, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) == 19


@pytest.mark.parametrize("stop", range(4, 14))
@pytest.mark.parametrize("size", [2, 3, 5])
def test_no_chunk_is_a_single_token(stop: int, size: int) -> None:
    cuts = chunks(3, stop, size)
    assert [token for start, end in cuts for token in range(start, end)] == list(range(3, stop))
    assert all(2 <= end - start <= size + 1 for start, end in cuts) or stop == 4


def test_float16_graphs_give_float32_logits(make_package: PackageMaker) -> None:
    config = TinyConfig(dtype="float16", target="cuda")
    model = edgellm.load(make_package(config), device="cpu")
    logits = model.logits(list(range(50)))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, reference_logits(config, range(50)), atol=0.05)
    assert len(model.generate(PROMPTS, max_new_tokens=30, **TO_THE_LIMIT)) == 4


@pytest.mark.cuda
def test_the_gpu_agrees_with_the_reference(make_package: PackageMaker) -> None:
    config = TinyConfig(dtype="float16", target="cuda")
    model = edgellm.load(make_package(config), prefill_chunk=16)
    assert model.info.device == "cuda"
    np.testing.assert_allclose(model.logits(list(range(50))), reference_logits(config, range(50)), atol=0.05)
    engine = model.new_engine()
    rows = [list(prompt) for prompt in PROMPTS]
    engine.prefill([np.array(row) for row in rows])
    engine.reorder(np.array([3, 3, 1]))
    logits = engine.decode(np.array([5, 6, 7]))
    expected = [reference_logits(config, [*rows[i], token])[-1] for i, token in ((3, 5), (3, 6), (1, 7))]
    np.testing.assert_allclose(logits, expected, atol=0.05)


def test_info(model: Model, package: Path) -> None:
    info = model.info
    assert (info.device, info.provider, info.precision, info.threads) == ("cpu", "CPUExecutionProvider", "fp32", 1)
    assert (info.context_length, info.vocab_size, info.cache_bytes_per_token) == (96, 264, 2 * 2 * 2 * 16 * 4)
    assert info.package_bytes == sum(p.stat().st_size for p in package.iterdir() if p.name != "edgellm.json")


def test_memory_follows_the_tokens_in_use(make_package: PackageMaker) -> None:
    model = edgellm.load(make_package(TinyConfig(context_length=100_000)))
    model.generate("Hi", max_new_tokens=5, **TO_THE_LIMIT)
    assert model._idle[0].cache_bytes == 64 * model.info.cache_bytes_per_token
    model.reset()
    assert not model._idle


def test_an_end_token_of_the_package(model: Model) -> None:
    assert model.manifest.tokens.eos == (EOS,)
    result = model.generate("Hi", max_new_tokens=3, forced_eos_token_id=EOS)
    assert result.finish_reason == "eos"
    assert result.tokens[-1] == EOS
