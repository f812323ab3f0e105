"""The int8 key/value cache of every family, beside the torch model whose keys and values are rounded likewise."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers as hf

import edgellm
import edgellm_export
from comparison import Unkept, distributions, fresh, prompt, reference_logits, relative_rms
from edgellm.commands.export_text import quality_lines
from edgellm.errors import ExportError
from edgellm.package.manifest import Manifest
from edgellm.package.report import read_report
from families import BY_NAME, FAMILIES
from test_cuda_graph import check_generation
from test_independence import check_batch, check_prefix

# test_latent and test_states have those whose caches transformers keeps in another way.
NAMES = [family.name for family in FAMILIES if not family.name.startswith("deepseek") and not family.remembers]
REPRESENTATIVE = [
    "gpt2",
    "gpt_oss",
    "deepseek_v2",
    "gemma3n",
    "llama-one-kv-head",
    "phi3-longrope",
    "mistral-sliding",
    "qwen3",
    "gemma2",
    "gemma3",
    "lfm2",
]
SIDES = ("key", "value")

# Relative RMS of logits beside the same rounding in torch: 2e-6 where all is rounded alike; a key that differs in its
# last float32 bit and is rounded the other way costs up to 2e-3. The int8 cache itself costs 0.009 to 0.28 on random
# tokens. Between two runs of a package nothing is rounded otherwise.
SAME_ROUNDING = 5e-3
SAME_PACKAGE = 1e-5


@pytest.fixture(scope="session")
def load_int8(package_int8: Callable[[str], Path]) -> Callable[[str], edgellm.Model]:
    return cache(lambda name: edgellm.load(package_int8(name), threads=1))


class RoundedCache(hf.DynamicCache):
    """Keys (behind the rotary embedding) and values as int8 with given scales keeps them."""

    has_previous_state = False  # of Mamba, which Granite asks for
    conv_cache = Unkept()

    def __init__(self, scales: list[dict[str, np.ndarray]]) -> None:
        super().__init__()
        self._scales = iter(scales)  # of the layers that have keys and values

    def update(self, key_states: Any, value_states: Any, layer_idx: int, cache_kwargs: Any = None) -> Any:
        rounded, scales = [], next(self._scales)
        for states, side in ((key_states, "key"), (value_states, "value")):
            scale = torch.from_numpy(scales[side].copy())
            scale = scale.repeat_interleave(states.shape[1] // scale.shape[1], 1)  # Falcon's has a head for each query
            rounded.append(torch.clamp(torch.round(states / scale), -128, 127) * scale)
        return super().update(*rounded, layer_idx, cache_kwargs)


def scales_of(package: Path) -> list[dict[str, np.ndarray]]:
    """[1, num_kv_heads, 1, head_dim] each, as the graph has them."""
    graph = onnx.load(package / "model.onnx").graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    return [dict(zip(SIDES, (arrays[name] for name in node.input[12:14]), strict=True)) for node in nodes]


def as_torch_has_them(
    model: torch.nn.Module, neighbours: int, scales: list[dict[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """Scales of keys that are in the checkpoint's order, where neighbours rotate together, and multiplied by the weight
    of a norm behind rotation, which the package has with its queries."""
    norms = [module.weight for name, module in model.named_modules() if name.endswith("key_layernorm")]
    found = [dict(layer) for layer in scales]
    for index, layer in enumerate(found):
        turned = layer["key"][..., :neighbours]
        pairs = turned.reshape(*turned.shape[:-1], 2, neighbours // 2).swapaxes(-1, -2).reshape(turned.shape)
        layer["key"] = np.concatenate([pairs, layer["key"][..., neighbours:]], axis=-1)
        if norms:
            layer["key"] *= norms[index].numpy()
    return found


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits(
    name: str,
    reference: Callable[[str], Any],
    package_int8: Callable[[str], Path],
    load_int8: Callable[[str], edgellm.Model],
) -> None:
    ids = prompt(name, BY_NAME[name].length)
    model = fresh(reference(name))
    scales = as_torch_has_them(model, BY_NAME[name].neighbours, scales_of(package_int8(name)))
    rounded = model(torch.tensor(ids[None]), past_key_values=RoundedCache(scales)).logits[0]
    found = load_int8(name).logits(ids)
    error = relative_rms(found, rounded.numpy())
    assert error < SAME_ROUNDING
    assert error < 0.3 * relative_rms(found, reference_logits(reference(name), ids))


@pytest.mark.parametrize("name", REPRESENTATIVE)
class TestIndependence:
    """Chunks, batches, prefixes, beams: what holds for a float cache holds for an int8 one."""

    def test_chunks_and_threads(
        self, name: str, package_int8: Callable[[str], Path], load_int8: Callable[[str], edgellm.Model]
    ) -> None:
        ids = prompt(name, BY_NAME[name].length)
        expected = load_int8(name).logits(ids)
        for chunk, threads in ((7, 1), (16, 2)):
            model = edgellm.load(package_int8(name), prefill_chunk=chunk, threads=threads)
            assert relative_rms(model.logits(ids), expected) < SAME_PACKAGE

    def test_batch_and_beams(self, name: str, load_int8: Callable[[str], edgellm.Model]) -> None:
        prompts = [prompt(name, length, seed) for seed, length in enumerate((3, 30, 14, 1))]
        for options in ({}, {"num_beams": 3}, {"do_sample": True, "seed": 5}):
            check_batch(load_int8(name), prompts, max_new_tokens=12, **options)

    def test_cached_prefix(self, name: str, load_int8: Callable[[str], edgellm.Model]) -> None:
        check_prefix(load_int8(name), prompt(name, 40), cuts=(1, 17, 39))

    def test_each_search_reads_what_it_wrote(self, name: str, load_int8: Callable[[str], edgellm.Model]) -> None:
        check_generation(load_int8(name), name)


def test_a_quarter_of_the_bytes(package: Callable[..., Path], load_int8: Callable[[str], edgellm.Model]) -> None:
    info, wide = load_int8("qwen3").info, edgellm.load(package("qwen3"), threads=1).info
    assert (info.cache_type, wide.cache_type) == ("int8", "float32")
    assert 4 * info.cache_bytes_per_token == wide.cache_bytes_per_token


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["gpt2", "phi3-partial", "gemma2"])
def test_the_report_passes_and_names_the_cache(
    name: str, precision: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    report = edgellm_export.export(checkpoint(name), tmp_path / "out", precision=precision, kv_cache="int8").report
    assert report is not None
    assert report.passed
    assert report.cache == "int8"
    assert ", int8 cache" in "\n".join(quality_lines(read_report(tmp_path / "out")))


def test_there_are_no_scales_without_a_tokenizer(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        (source / name).write_bytes((checkpoint("llama") / name).read_bytes())
    with pytest.raises(ExportError, match="no tokenizer"):
        edgellm_export.export(source, tmp_path / "package", kv_cache="int8")
    assert not (tmp_path / "package").exists()


def test_not_for_cuda(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="float16 key/value cache only"):
        edgellm_export.export(checkpoint("llama"), tmp_path / "package", target="cuda", kv_cache="int8")


def test_a_manifest_that_promises_it_on_cuda_is_refused(load_int8: Callable[[str], edgellm.Model]) -> None:
    manifest = load_int8("qwen3").manifest
    with pytest.raises(edgellm.PackageCorruptError, match=r"cache.dtype is 'int8' in a package for cuda"):
        Manifest.from_dict({**manifest.to_dict(), "target": "cuda"})


@pytest.mark.real_model
def test_real_model(
    smollm2_gguf: Path, smollm2_package: Callable[[str], Path], held_out: list[str], tmp_path: Path
) -> None:
    """Measured: KL divergence 0.0018 at 256 tokens. At 1,800, where slow pairs have turned far, 0.0010 in the last 800;
    scales for the angles of the calibration text alone cost 0.1 there."""
    path = edgellm_export.export(
        smollm2_gguf, tmp_path / "package", precision="fp32", kv_cache="int8", verify_quality=False
    ).path
    int8, wide = edgellm.load(path), edgellm.load(smollm2_package("fp32"))
    short = [wide.tokenizer.encode(text)[:256] for text in held_out[:9]]
    long = wide.tokenizer.encode("\n\n".join(held_out))[:1800]
    assert np.mean([divergence(wide, int8, ids).mean() for ids in short]) < 0.002
    assert divergence(wide, int8, long)[1000:].mean() < 0.002


def divergence(reference: edgellm.Model, model: edgellm.Model, ids: np.ndarray) -> np.ndarray:
    """KL divergence after each token, nats."""
    return distributions(reference.logits(ids), model.logits(ids)).kl_divergence()
