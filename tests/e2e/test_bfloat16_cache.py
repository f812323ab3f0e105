"""Packages loaded with a bfloat16 key/value cache, beside the torch model that rounds keys and values likewise."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from click.testing import CliRunner

import edgellm
import edgellm_export
import encoder_decoder_families
from comparison import Unkept, distributions, fresh, prompt, reference_logits, relative_rms
from concat_directory import write_directory
from edgellm import OptionError, SessionMismatchError
from edgellm.bench import run_bench
from edgellm.cli import cli
from edgellm.ort import kernels, loaded_graph
from edgellm.ort.kernels import library
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import Manifest
from families import BY_NAME, FAMILIES
from test_independence import check_batch, check_prefix

pytestmark = pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")
# test_latent and test_states have those whose caches transformers keeps in another way.
NAMES = [family.name for family in FAMILIES if not family.name.startswith("deepseek") and not family.remembers]
KINDS: tuple[Any, ...] = ("bfloat16", "auto")

# A number rounded to bfloat16's 8 digits is off by at most 2^-9 of itself. Beside torch with keys and values rounded
# alike, only those are off, by 2^-8, whose float32 differed in its last bits next to a tie: up to 3e-4 of the logits
# (relative RMS), where the cache itself costs 1e-3 to 0.013 on random tokens and weights.
SAME_ROUNDING = 1e-3


@pytest.fixture(scope="module")
def load16(package: Callable[..., Path]) -> Callable[..., edgellm.Model]:
    return cache(lambda *which: edgellm.load(package(*which), threads=1, kv_cache="bfloat16"))


class RoundedCache(hf.DynamicCache):
    """Keys (behind the rotary embedding) and values as bfloat16 keeps them. `weights`: of the norms behind that
    embedding, if there are some, which packages have with their queries."""

    def __init__(self, weights: list[torch.Tensor]) -> None:
        super().__init__()
        self._weights = weights

    has_previous_state = False  # of Mamba, which Granite asks for
    conv_cache = Unkept()

    def update(self, key_states: Any, value_states: Any, layer_idx: int, cache_kwargs: Any = None) -> Any:
        weight = self._weights[layer_idx] if self._weights else torch.ones(())
        rounded = (key_states / weight).bfloat16().float() * weight, value_states.bfloat16().float()
        return super().update(*rounded, layer_idx, cache_kwargs)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits(name: str, reference: Callable[[str], Any], load16: Callable[..., edgellm.Model]) -> None:
    ids = prompt(name, BY_NAME[name].length)
    model = fresh(reference(name))
    weights = [module.weight for part, module in model.named_modules() if part.endswith("key_layernorm")]
    rounded = model(torch.tensor(ids[None]), past_key_values=RoundedCache(weights)).logits[0].numpy()
    found, plain = load16(name).logits(ids), reference_logits(reference(name), ids)
    assert relative_rms(found, rounded) < SAME_ROUNDING
    assert relative_rms(found, rounded) < 0.3 * relative_rms(found, plain)


@pytest.mark.parametrize("name", ["phi3-longrope", "mistral-sliding", "gemma3", "gemma3n", "lfm2"])
def test_batches_beams_and_prefixes(name: str, load16: Callable[..., edgellm.Model]) -> None:
    """Rows that are copied, reordered and taken over; to the last bit what is read is in test_exactness.py."""
    prompts = [prompt(name, length, seed) for seed, length in enumerate((3, 30, 14, 1))]
    for options in ({}, {"num_beams": 3}, {"do_sample": True, "seed": 5}):
        check_batch(load16(name), prompts, max_new_tokens=12, **options)
    check_prefix(load16(name), prompt(name, 40), cuts=(1, 17, 39))


def test_half_of_the_bytes(package: Callable[..., Path], load16: Callable[..., edgellm.Model], tmp_path: Path) -> None:
    """Of a token, of a call's cache, of a budget and of a saved session."""
    models = load16("qwen3"), edgellm.load(package("qwen3"), threads=1)
    assert [model.info.cache_type for model in models] == ["bfloat16", "float32"]
    token, wide_token = (model.info.cache_bytes_per_token for model in models)
    assert 2 * token == wide_token
    ids, files, held = prompt("qwen3", 64).tolist(), [], []
    for number, model in enumerate(models):
        with model.session() as session:
            session.prefill(ids)
            session.save(tmp_path / str(number))
            held.append(session.nbytes)
            files.append((tmp_path / str(number)).stat().st_size)
    assert 2 * held[0] == held[1]
    assert files[1] - files[0] == 64 * token
    budgets = [model.session(max_bytes=20 * wide_token).max_tokens for model in models]
    assert budgets == [40, 20]


def test_a_session_of_another_cache(
    package: Callable[..., Path], load16: Callable[..., edgellm.Model], tmp_path: Path
) -> None:
    models = load16("qwen3"), edgellm.load(package("qwen3"), threads=1)
    for saving, loading in (models, reversed(models)):
        with saving.session() as session:
            session.prefill(prompt("qwen3", 9))
            session.save(tmp_path / "s")
        with pytest.raises(SessionMismatchError, match=r"another kind of cache .*bfloat16"):
            loading.load_session(tmp_path / "s")


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_encoder_decoders(name: str, shared: encoder_decoder_families.Shared) -> None:
    """The target's own keys and values are rounded, those of its source are not."""
    path = encoder_decoder_families.package(name, "fp32", shared)
    half, wide = (edgellm.load(path, threads=1, kv_cache=kind) for kind in KINDS)
    assert isinstance(half, edgellm.EncoderDecoderModel)
    assert isinstance(wide, edgellm.EncoderDecoderModel)
    assert 2 * half.info.cache_bytes_per_token == wide.info.cache_bytes_per_token
    assert half.manifest.model.cross_cache == wide.manifest.model.cross_cache
    source, target = (row.tolist() for row in encoder_decoder_families.sources(20, 12))
    found, expected = half.logits(source, target), wide.logits(source, target)
    assert 0 < relative_rms(found, expected) < 0.02


def test_on_the_command_line(package: Callable[..., Path], tmp_path: Path) -> None:
    path, data = str(package("llama")), tmp_path / "text.txt"
    data.write_text("The cat sat on the mat. " * 5)
    model = edgellm.load(path, threads=1, kv_cache="bfloat16")
    expected = model.generate("cat", max_new_tokens=5).text
    found = run("generate", path, "cat", "--max-new-tokens", "5", "--threads", "1", "--kv-cache", "bfloat16")
    assert found.stdout == expected + "\n"
    judged = run("eval", path, "--data", str(data), "--kv-cache", "bfloat16", "--json")
    assert json.loads(judged.stdout)["package"]["cache"] == "bfloat16"
    timed = run_bench(path, prompt_tokens=4, new_tokens=2, repeats=1, loads=0, kv_cache="bfloat16")
    assert timed.package.cache_bytes_per_token == model.info.cache_bytes_per_token


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    return result


# What cannot be


def refused(path: Path, message: str, **options: Any) -> None:
    with pytest.raises(OptionError, match=message):
        edgellm.load(path, kv_cache="bfloat16", **options)


def test_other_caches(package: Callable[..., Path], package_int8: Callable[[str], Path], tmp_path: Path) -> None:
    refused(package_int8("qwen3"), "the package has one of int8; leave kv_cache out, or export")
    refused(package("qwen3", "fp16", "cuda"), "the package has one of float16", device="cpu")
    refused(write_directory(tmp_path / "others"), "the package has one that its graph makes anew at each step")


def test_no_cache(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    options: dict[str, Any] = {"precision": "fp32", "verify_quality": False}
    encoder = edgellm_export.export(tiny("encoder"), tmp_path / "out", task="feature-extraction", **options).path
    refused(encoder, "a package for feature-extraction has no key/value cache")


def test_other_kernels(package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = package("qwen3")
    refused(path, "needs edgellm's own CPU kernels for all attention, and kernels is 'off'", kernels="off")
    with pytest.raises(OptionError, match="and the device is CUDA; leave kv_cache out, or choose the CPU"):
        LoadedGraph(path / "model.onnx", "cuda", kv_cache="bfloat16")
    for module in (kernels, loaded_graph):
        monkeypatch.setattr(module, "library", lambda: None)
    refused(path, "they are not there; leave kv_cache out, or do what `edgellm doctor` says of kernels")


def test_attention_weights(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """What gives them is ONNX Runtime's operator."""
    options: dict[str, Any] = {"precision": "fp32", "attentions": True, "verify_quality": False}
    path = edgellm_export.export(checkpoint("llama"), tmp_path / "out", **options).path
    refused(path, "some of this graph's is ONNX Runtime's; .*exported without --attentions")


def test_other_names(package: Callable[..., Path]) -> None:
    with pytest.raises(OptionError, match="kv_cache is 'int8', expected 'auto' or 'bfloat16'; others are"):
        edgellm.load(package("qwen3"), kv_cache="int8")  # type: ignore[arg-type]


def test_no_package_has_it(load16: Callable[..., edgellm.Model]) -> None:
    with pytest.raises(edgellm.PackageCorruptError, match=r"cache.dtype is 'bfloat16', which no package has"):
        Manifest.from_dict(load16("qwen3").manifest.to_dict())


@pytest.mark.real_model
def test_real_model(smollm2_package: Callable[[str], Path], held_out: list[str]) -> None:
    """Measured: KL divergence 0.00007 with float32 weights."""
    wide, half = (edgellm.load(smollm2_package("fp32"), kv_cache=kind) for kind in ("auto", "bfloat16"))
    assert isinstance(wide, edgellm.Model)
    assert isinstance(half, edgellm.Model)
    ids = wide.tokenizer.encode("\n\n".join(held_out))[:1024]
    found = distributions(wide.logits(ids), half.logits(ids))
    assert found.kl_divergence().mean() < 0.0002
