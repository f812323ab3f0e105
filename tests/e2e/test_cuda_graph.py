"""Packages for CUDA: their float16 graphs on the CPU provider anywhere, everything on the device where there is one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
import edgellm_export
from comparison import hf_generate, prompt, reference_logits, relative_rms
from edgellm.engines.in_place.device_cache import DeviceCache
from families import BY_NAME, FAMILIES
from rounding import rounded

NAMES = [family.name for family in FAMILIES if not family.remembers]
PRECISIONS = ["fp16", "int8", "int4"]
REPRESENTATIVE = ["gpt2", "llama-dynamic", "mistral-sliding", "qwen3-biases", "phi3-longrope", "gemma2", "gemma3"]

# Relative RMS error of logits beside torch in float32 with the same rounded weights. float16 has 11 bits (5e-4 per
# operation), and rounding errors of a few layers add up: measured 0.0006 to 0.0063, most on the widest model.
FLOAT16 = 0.01
# Log-probabilities of a step through the cache beside the same tokens at once, absolute; logits reach 20 in size.
FLOAT16_LOGPROB = 0.1


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="edgellm")  # packages for CUDA warn that they run on the CPU


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_generation_on_the_cpu_provider(name: str, precision: str, load: Callable[..., edgellm.Model]) -> None:
    """Logits are in test_precisions. Here: the float16 cache, step by step, in a batch and under beams."""
    check_generation(load(name, precision, "cuda"), name)


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_fp16_chooses_the_tokens_of_the_original(
    name: str, load: Callable[..., edgellm.Model], reference: Callable[[str], Any]
) -> None:
    """Up to the first near-tie, which few of these prompts meet in so few tokens."""
    same = 0
    for seed in range(6):
        ids = prompt(name, 12, seed)
        found = load(name, "fp16", "cuda").generate(ids, max_new_tokens=8)
        same += [found.tokens] == hf_generate(reference(name), ids, max_new_tokens=8).tokens
    assert same >= 5


@pytest.fixture(scope="session")
def load_on_device(package: Callable[..., Path]) -> Callable[[str, str], edgellm.Model]:
    return lambda name, precision: edgellm.load(package(name, precision, "cuda"), device="cuda")


@pytest.mark.cuda
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_logits_on_the_device(
    name: str,
    precision: str,
    load_on_device: Callable[[str, str], edgellm.Model],
    reference: Callable[[str], Any],
) -> None:
    model = load_on_device(name, precision)
    assert (model.info.device, model.info.provider) == ("cuda", "CUDAExecutionProvider")
    ids = prompt(name, BY_NAME[name].length)
    assert relative_rms(model.logits(ids), reference_logits(rounded(reference(name), precision), ids)) < FLOAT16


@pytest.mark.cuda
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_generation_on_the_device(
    name: str, precision: str, load_on_device: Callable[[str, str], edgellm.Model]
) -> None:
    model = load_on_device(name, precision)
    check_generation(model, name)
    (engine,) = model._idle
    assert isinstance(engine._cache, DeviceCache)
    assert {buffer.value.device_name().lower() for buffer in engine._cache._buffers} == {"cuda"}


@pytest.mark.cuda
def test_the_device_and_the_cpu_agree(
    package: Callable[..., Path], load_on_device: Callable[[str, str], edgellm.Model]
) -> None:
    """auto is CUDA for such a package; both providers compute the same graph."""
    ids = prompt("qwen3", 60)
    on_cpu = edgellm.load(package("qwen3", "int8", "cuda"), device="cpu").logits(ids)
    automatic = edgellm.load(package("qwen3", "int8", "cuda"))
    assert automatic.info.device == "cuda"
    assert relative_rms(automatic.logits(ids), on_cpu) < FLOAT16


def check_generation(model: edgellm.Model, name: str) -> None:
    """Greedy, stream, batch, beams, samples: each sequence's log-probabilities are those of its tokens read at once."""
    prompts = [prompt(name, length, seed) for seed, length in enumerate((9, 25, 1))]
    shared: dict[str, Any] = {"max_new_tokens": 10, "eos_token_id": [], "logprobs": True}
    for options in (
        {},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "seed": 3, "num_return_sequences": 2},
    ):
        for ids, generation in zip(prompts, model.generate(prompts, **shared, **options), strict=True):
            for sequence in generation.sequences:
                assert_logprobs(model, ids, sequence.tokens, sequence.logprobs)
    pieces = list(model.stream(prompts[0], **shared))
    found = model.generate(prompts[0], **shared)
    assert tuple(piece.tokens[0] for piece in pieces) == found.tokens


def assert_logprobs(model: edgellm.Model, ids: np.ndarray, tokens: tuple[int, ...], logprobs: Any) -> None:
    if model.manifest.model.rope.has_length_input:
        return  # tables follow the length: tokens read at once rotate by the last one's
    expected = model.score([*ids.tolist(), *tokens]).logprobs[len(ids) - 1 :]
    np.testing.assert_allclose(logprobs, expected, rtol=0, atol=FLOAT16_LOGPROB)


def test_an_export_for_cuda_is_compared_on_the_cpu(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workstation without a GPU can export for a device that has one, and still knows that the package is right."""
    monkeypatch.setattr("edgellm.ort.library._require_cuda", _no_cuda)
    exported = edgellm_export.export(checkpoint("qwen2"), tmp_path / "package", precision="fp16", target="cuda")
    assert exported.report is not None
    assert exported.report.quality.device == "cpu"
    assert 0 < exported.report.quality.kl_divergence < 1e-3


def _no_cuda() -> None:
    raise edgellm.ProviderError("no CUDA here")
