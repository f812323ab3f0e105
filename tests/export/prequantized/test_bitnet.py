"""BitNet's ternary matrices, against what transformers' own layers compute."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.checkpoint.integers import integers_of
from edgellm_export.sources.opening import open_checkpoint

LAYER = "model.layers.0.mlp.up_proj"
SIZES: dict[str, Any] = {
    "vocab_size": 131, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
ONLINE = {"linear_class": "autobitlinear", "quantization_mode": "online"}


@pytest.fixture(scope="module")
def bitnet() -> ModuleType:
    """transformers' module, whose functions are compiled when they are made."""
    with mock.patch.object(torch, "compile", lambda function: function):
        return importlib.import_module("transformers.integrations.bitnet")


@pytest.fixture
def save(bitnet: ModuleType, tmp_path: Path) -> Any:
    """A checkpoint, and its layers' matrices in transformers, quantized in a way of its own."""

    def make(*, packed: bool, **quantization: Any) -> tuple[Path, dict[str, np.ndarray]]:
        torch.manual_seed(0)
        hf.BitNetForCausalLM(hf.BitNetConfig(**SIZES)).save_pretrained(tmp_path)
        tensors, expected = load_file(tmp_path / "model.safetensors"), {}
        for name in [name for name in tensors if "_proj" in name]:
            expected[name] = bitnet.WeightQuant.apply(tensors[name]).numpy()
            scale = tensors[name].abs().mean()
            if packed:
                divides = quantization.get("linear_class") is None
                tensors[f"{name}_scale"] = (1 / scale if divides else scale).reshape(1)
                tensors[name] = bitnet.pack_weights((tensors[name] / scale).round().clamp(-1, 1))
        save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
        config = json.loads((tmp_path / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "bitnet", **quantization}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path, expected

    return make


WAYS: dict[str, dict[str, Any]] = {
    "divided": {"packed": True},
    "multiplied": {"packed": True, "linear_class": "autobitlinear"},
    "online": {"packed": False, **ONLINE},
}


@pytest.mark.parametrize("way", WAYS)
def test_matrices_are_those_of_transformers(bitnet: ModuleType, save: Any, way: str) -> None:
    path, expected = save(**WAYS[way])
    tensors = open_checkpoint(str(path)).tensors
    for name, matrix in expected.items():
        found = tensors[name]
        np.testing.assert_allclose(found.rows(0, found.shape[0]), matrix, rtol=1e-6)
        np.testing.assert_array_equal(found.rows(10, 30), found.rows(0, 32)[10:30])
        (integers,) = integers_of(found, 10, 30)
        assert set(np.unique(integers.levels)) == {0, 1, 2}
    assert not integers_of(tensors["lm_head.weight"], 0, 1)
    x = torch.randn(3, 64)
    y = own_layer(bitnet, path, way)(x).detach().numpy()  # which rounds its inputs, too
    np.testing.assert_allclose(x.numpy() @ tensors[f"{LAYER}.weight"].rows(0, 96).T, y, atol=0.02 * np.abs(y).max())


def own_layer(bitnet: ModuleType, path: Path, way: str) -> torch.nn.Module:
    stored = load_file(path / "model.safetensors")
    own = {name.removeprefix(f"{LAYER}."): tensor for name, tensor in stored.items() if name.startswith(f"{LAYER}.")}
    if way == "divided":
        layer: torch.nn.Module = bitnet.BitLinear(64, 96, bias=False, dtype=torch.float32)
    else:
        layer = bitnet.AutoBitLinear(64, 96, bias=False, online_quant=way == "online")
    layer.load_state_dict(own)
    return layer


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"use_rms_norm": True}, UnsupportedModelError, "use_rms_norm is True"),
        ({"quantization_mode": "online"}, UnsupportedModelError, "quantization_mode is 'online'"),
        ({"modules_to_not_convert": "lm_head"}, CheckpointError, "expected a list of names"),
    ],
)
def test_other_ways_are_refused(save: Any, keys: dict[str, Any], error: type[Exception], message: str) -> None:
    path, _ = save(packed=True, **keys)
    with pytest.raises(error, match=message):
        open_checkpoint(str(path))
