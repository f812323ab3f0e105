"""Latent attention: what is particular to it, beside the checks that all families go through."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers.models.deepseek_v2 import modeling_deepseek_v2

import edgellm
import edgellm_export
from comparison import fresh, prompt, reference_logits, relative_rms
from edgellm.errors import CheckpointError, ExportError
from edgellm.ort.kernels import library
from edgellm.package.manifest import DecoderFacts, is_of
from edgellm_export.architectures import read_family
from families import BY_NAME, make_model, save_checkpoint
from test_bfloat16_cache import SAME_ROUNDING as SAME_BFLOAT16
from test_kv_cache import SAME_ROUNDING, as_torch_has_them, scales_of

NAMES = ["deepseek_v2", "deepseek_v2-groups"]
ROTATED = 16  # channels of a key


def test_a_token_takes_the_memory_of_its_latent_and_of_the_rotated_channels(load: Callable[..., edgellm.Model]) -> None:
    model = load("deepseek_v2")
    config, shape = BY_NAME["deepseek_v2"].config(), model.manifest.model
    assert is_of(model.manifest, DecoderFacts)
    channels = config.kv_lora_rank + config.qk_rope_head_dim
    assert model.info.cache_bytes_per_token == 4 * config.num_hidden_layers * channels
    assert (shape.cache.num_kv_heads, shape.cache.head_dim, shape.cache.values_are_keys) == (1, channels, True)


def test_such_a_cache_that_concatenates_is_refused(package: Callable[..., Path], tmp_path: Path) -> None:
    path = shutil.copytree(package("deepseek_v2"), tmp_path / "package")
    manifest = json.loads((path / "edgellm.json").read_text())
    manifest["cache"]["growth"] = "concat"
    (path / "edgellm.json").write_text(json.dumps(manifest))
    with pytest.raises(edgellm.PackageCorruptError, match=r"cache.values_are_keys is true of a cache that grows by"):
        edgellm.load(path)


def test_a_saved_session_has_one_array_for_each_layer(load: Callable[..., edgellm.Model], tmp_path: Path) -> None:
    model, ids = load("deepseek_v2"), prompt("deepseek_v2", 64)
    session = model.session()
    expected = session.generate(ids, max_new_tokens=8).tokens
    session.save(tmp_path / "state")
    size = (tmp_path / "state").stat().st_size
    assert size < 1.5 * 72 * model.info.cache_bytes_per_token
    restored = model.load_session(tmp_path / "state")
    more = np.concatenate([ids, expected, prompt("deepseek_v2", 5)])
    assert restored.generate(more, max_new_tokens=8).tokens == model.generate(more, max_new_tokens=8).tokens


@contextmanager
def rounded_latents(model: Any, rounding: Callable[[Any, int, slice], Any]) -> Iterator[None]:
    """transformers 4.57 caches keys and values: latents and rotated channels are rounded where they are made, by
    `rounding(x, layer, channels of the cached head)`."""
    turn, count = modeling_deepseek_v2.apply_rotary_emb, iter(range(model.config.num_hidden_layers))

    def turned(q: Any, k: Any, tables: Any) -> Any:
        q, k = turn(q, k, tables)
        return q, rounding(k, next(count), slice(ROTATED))

    hooks = [
        layer.self_attn.kv_a_layernorm.register_forward_hook(lambda _, __, y, i=i: rounding(y, i, slice(ROTATED, None)))
        for i, layer in enumerate(model.model.layers)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_deepseek_v2, "apply_rotary_emb", turned)
        yield
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_int8_cache_rounds_as_torch_does(
    name: str, reference: Callable[[str], Any], package_int8: Callable[[str], Path]
) -> None:
    ids, model, package = prompt(name, BY_NAME[name].length), fresh(reference(name)), package_int8(name)
    packed = scales_of(package)
    assert all(np.array_equal(layer["key"], layer["value"]) for layer in packed)
    scales = [torch.from_numpy(layer["key"][0, 0, 0]) for layer in as_torch_has_them(model, ROTATED, packed)]

    def rounded(x: Any, layer: int, channels: slice) -> Any:
        scale = scales[layer][channels]
        return torch.clamp(torch.round(x / scale), -128, 127) * scale

    with rounded_latents(model, rounded):
        expected = model(torch.tensor(ids[None])).logits[0].numpy()
    found = edgellm.load(package, threads=1).logits(ids)
    assert relative_rms(found, expected) < SAME_ROUNDING
    assert relative_rms(found, expected) < 0.3 * relative_rms(found, reference_logits(reference(name), ids))


@pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_bfloat16_cache_rounds_as_torch_does(
    name: str, reference: Callable[[str], Any], package: Callable[..., Path]
) -> None:
    ids, model = prompt(name, BY_NAME[name].length), fresh(reference(name))
    with rounded_latents(model, lambda x, _, __: x.bfloat16().float()):
        expected = model(torch.tensor(ids[None])).logits[0].numpy()
    found = edgellm.load(package(name), threads=1, kv_cache="bfloat16").logits(ids)
    assert relative_rms(found, expected) < SAME_BFLOAT16
    assert relative_rms(found, expected) < 0.3 * relative_rms(found, reference_logits(reference(name), ids))


def test_what_makes_keys_and_values_is_a_matrix_for_each_head(package: Callable[..., Path]) -> None:
    """Of as many bits as all others."""
    graph = onnx.load(package("deepseek_v2", "int4") / "model.onnx", load_external_data=False).graph
    nodes = [node for node in graph.node if node.op_type == "MatMulNBits" and "_b_proj." in node.name]
    bits = [attribute.i for node in nodes for attribute in node.attribute if attribute.name == "bits"]
    assert bits == [4] * (2 * 3 * 6)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("deepseek_v2", {"num_key_value_heads": 2}, "num_key_value_heads is 2, expected 6"),
        ("deepseek_v2", {"rope_scaling": "yarn"}, "rope_scaling is 'yarn', expected an object"),
        ("deepseek_v2", {"rope_scaling": {"type": "yarn", "mscale_all_dim": 1}}, "factor is missing"),
        ("deepseek_v2", {"rope_scaling": {"type": "yarn", "factor": 2, "mscale_all_dim": "a"}}, "mscale_all_dim is"),
        ("deepseek_v2", {"head_dim": 24}, "head_dim is 24, expected 16"),
        ("deepseek_v2", {"kv_lora_rank": 40}, "kv_lora_rank is 40, expected a multiple of 16"),
        ("deepseek_v2", {"num_experts_per_tok": 7}, "num_experts_per_tok is 7, and there are 6 experts"),
        ("deepseek_v3", {"n_group": 4}, "6 experts are no 4 groups of the same size"),
        ("deepseek_v3", {"n_group": 3}, "3 experts of a token do not fit into 1 of 3 groups of 6 experts"),
        ("deepseek_v3", {"n_group": 2, "topk_group": 3}, "do not fit into 3 of 2 groups"),
        ("deepseek_v3", {"n_group": 6, "topk_group": 6}, "groups have 1 experts, expected at least 2"),
    ],
)
def test_configs_that_cannot_be_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    config = json.loads(BY_NAME[name].config().to_json_string(use_diff=False))
    with pytest.raises(CheckpointError, match=message):
        read_family(config | changes, 1000)


def test_heads_that_are_too_large_for_cuda_are_refused(tmp_path: Path) -> None:
    family = BY_NAME["deepseek_v2"]
    model = make_model(family.__class__("wide", lambda: _wide(family)))
    save_checkpoint(model, tmp_path / "checkpoint")
    with pytest.raises(ExportError, match="up to 256 channels, and this model's has 272; export for the CPU"):
        edgellm_export.export(tmp_path / "checkpoint", tmp_path / "package", precision="fp16", target="cuda")
    assert not (tmp_path / "package").exists()


def _wide(family: Any) -> Any:
    config = family.config()
    config.kv_lora_rank = 256
    return config
