"""What a prompt gets does not depend on the batch, the chunk size, a cached prefix or the thread count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from comparison import prompt, relative_rms
from families import BY_NAME

NAMES = [
    "gpt2",
    "gpt_oss",
    "deepseek_v2",
    "gemma3n",
    "llama-one-kv-head",
    "llama-dynamic",
    "phi3-longrope",
    "mistral-sliding",
    "qwen3",
    "gemma2",
    "gemma3",
    "lfm2",
]
VARIANTS = [(1, 1), (7, 1), (64, 1), (128, 2), (7, 2)]  # prefill_chunk, threads
WITHOUT_END: dict[str, Any] = {"eos_token_id": [], "logprobs": True}

# Relative RMS of logits. Measured: mostly the same bits. Where float32 differs in its last bits (1e-6), int8 may round
# an activation the other way, and then the next layer more of them: 8e-4 on SmolLM2 where a chunk ends one token later,
# against 0.027 of quantization error. A prompt cut into single tokens differed by 0.001-0.02.
LOGITS = {"fp32": 1e-5, "int8": 5e-3}
LOGPROBS = {"fp32": 1e-4, "int8": 0.05, "int4": 0.05}  # absolute


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", NAMES)
class TestTiny:
    def test_chunks_and_threads(
        self, name: str, precision: str, package: Callable[..., Path], load: Callable[..., edgellm.Model]
    ) -> None:
        for length in (BY_NAME[name].length, 15):  # 15 leaves a single token over after two chunks of seven
            ids = prompt(name, length)
            expected = load(name, precision).logits(ids)
            for chunk, threads in VARIANTS:
                model = edgellm.load(package(name, precision), device="cpu", prefill_chunk=chunk, threads=threads)
                assert relative_rms(model.logits(ids), expected) < LOGITS[precision], (chunk, threads)

    def test_batch(self, name: str, precision: str, load: Callable[..., edgellm.Model]) -> None:
        prompts = [prompt(name, length, seed) for seed, length in enumerate((3, 30, 14, 1))]
        for options in ({}, {"num_beams": 3}, {"do_sample": True, "seed": 5}):
            check_batch(load(name, precision), prompts, max_new_tokens=12, **options)

    def test_cached_prefix(self, name: str, precision: str, load: Callable[..., edgellm.Model]) -> None:
        ids = prompt(name, 40)
        check_prefix(load(name, precision), ids, cuts=(1, 17, 38, 39, 40))


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("name", ["gpt2", "qwen3", "gemma3", "gemma3n", "lfm2"])
def test_a_prefix_that_was_generated(name: str, precision: str, load: Callable[..., edgellm.Model]) -> None:
    """The next turn of a chat. Where decoding would have left other keys and values, they are computed anew."""
    model = load(name, precision)
    ids = prompt(name, 20)
    turn = [*ids, *model.generate(ids, max_new_tokens=20, eos_token_id=[]).tokens, 5, 6]
    after = model.generate(turn, max_new_tokens=10, **WITHOUT_END)
    model.reset()
    assert_same(model, after, model.generate(turn, max_new_tokens=10, **WITHOUT_END))


@pytest.mark.real_model
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_real_model(precision: str, smollm2_package: Callable[[str], Path], held_out: list[str]) -> None:
    model = edgellm.load(smollm2_package(precision), device="cpu", threads=1)
    ids = model.tokenizer.encode(held_out[0])[:129]
    expected = model.logits(ids)
    for chunk, threads in [(1, 1), (7, 1), (64, 2)]:
        other = edgellm.load(model.info.path, device="cpu", prefill_chunk=chunk, threads=threads)
        assert relative_rms(other.logits(ids), expected) < LOGITS[precision], (chunk, threads)
        del other
    check_batch(model, [ids[:40], ids[50:53], ids[60:129]], max_new_tokens=12)
    check_prefix(model, ids[:60], cuts=(30, 59))


def check_batch(model: edgellm.Model, prompts: Sequence[np.ndarray], **options: Any) -> None:
    together = model.generate(prompts, **options, **WITHOUT_END)
    for ids, generation in zip(prompts, together, strict=True):
        model.reset()
        assert_same(model, generation, model.generate(ids, **options, **WITHOUT_END))


def check_prefix(model: edgellm.Model, ids: np.ndarray, cuts: Sequence[int]) -> None:
    """`ids` after a prompt that agrees with it up to each cut, beside `ids` alone."""
    model.reset()
    alone = model.generate(ids, max_new_tokens=10, **WITHOUT_END)
    for cut in cuts:
        model.reset()
        model.generate([*ids[:cut], 7, 8, 9], max_new_tokens=1)
        assert_same(model, model.generate(ids, max_new_tokens=10, **WITHOUT_END), alone)


def assert_same(model: edgellm.Model, found: edgellm.Generation, expected: edgellm.Generation) -> None:
    assert found.tokens == expected.tokens
    assert found.logprobs is not None
    assert expected.logprobs is not None
    np.testing.assert_allclose(found.logprobs, expected.logprobs, rtol=0, atol=LOGPROBS[model.info.precision])
