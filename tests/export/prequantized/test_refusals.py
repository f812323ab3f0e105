"""What a quantized checkpoint says that cannot be, or that edgellm does not read, is an error that names it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgellm.errors import CheckpointError, TensorError, UnsupportedModelError
from edgellm_export.checkpoint import patterns
from edgellm_export.checkpoint.integers import UnusedBias
from edgellm_export.prequantized import widened
from edgellm_export.weights.safetensors import read_safetensors
from quantized_files import METHODS

WEIGHT = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)


def opened(path: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
    """The matrices of a checkpoint with one layer, w."""
    stored = {f"w.{name}": value.contiguous().clone() for name, value in tensors.items()}
    save_file(stored, path / "model.safetensors")
    return widened({"quantization_config": config}, read_safetensors(path / "model.safetensors"))


def parts(method: str) -> dict[str, torch.Tensor]:
    return dict(METHODS[method].pack(WEIGHT)[0])


def state(**changes: Any) -> torch.Tensor:
    said = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [64, 128], **changes}
    return torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)


NF4 = "weight.quant_state.bitsandbytes__nf4"
TENSORS: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "no scales": ("gptq-4", {"scales": None}, TensorError, r"w\.scales is missing beside the other parts"),
    "scales of integers": ("gptq-4", {"scales": torch.ones(4, 64).int()}, TensorError, "w.scales has type I32"),
    "words of floats": ("gptq-4", {"qweight": torch.ones(16, 64)}, TensorError, r"w.qweight has type F32"),
    "too few words": ("gptq-4", {"qweight": torch.ones(15, 64).int()}, TensorError, r"w.qweight has shape \[15, 64\]"),
    "zero points of another": ("gptq-4", {"qzeros": torch.ones(3, 8).int()}, TensorError, r"expected \[4, 8\], by its"),
    "a group that is not there": ("gptq-4", {"g_idx": torch.full((128,), 4).int()}, TensorError, "groups of 32 of 128"),
    "a negative group": ("gptq-4", {"g_idx": torch.full((128,), -1).int()}, TensorError, "groups of 32 of 128 inputs"),
    "a group for nothing": ("gptq-4", {"g_idx": torch.tensor(0).int()}, TensorError, "a number for each input"),
    "a bias of another shape": ("gptq-4", {"bias": torch.zeros(1, 64).half()}, TensorError, r"w.bias has shape \[1,"),
    "awq groups": ("awq", {"scales": torch.ones(3, 64).half()}, TensorError, r"w.scales has shape \[3, 64\], expected"),
    "ct columns": ("ct-int4", {"weight_shape": torch.tensor([64, 120])}, TensorError, r"\[64, 120\] weights of 4"),
    "ct rows": ("ct-int4", {"weight_shape": torch.tensor([63, 128])}, TensorError, r"\[63, 128\] weights of 4 bits"),
    "ct scales": ("ct-int4", {"weight_scale": torch.ones(64, 5)}, TensorError, r"expected \[64, 4\], by its scheme"),
    "ct zero points": (
        "ct-int4", {"weight_zero_point": torch.ones(7, 4).int()}, TensorError, r"\[7, 4\], expected \[8, 4\]",
    ),
    "ct zero points of more bits": (
        "ct-int4", {"weight_zero_point": torch.full((64, 4), 8).char()}, TensorError, "numbers beyond 4 bits",
    ),
    "ct not compressed": (
        "ct-int8", {"weight": torch.ones(64, 128)}, UnsupportedModelError, "with 'compressed'; export the original",
    ),
    "fp8 scales": ("fp8", {"weight_scale_inv": torch.ones(3, 2)}, TensorError, r"has shape \[3, 2\], expected one for"),
    "fp8 of bytes": ("fp8", {"weight": torch.ones(64, 128).byte()}, TensorError, "has type U8, expected F8_E4M3"),
    "nf4 not JSON": ("bnb-nf4", {NF4: torch.tensor([1, 2], dtype=torch.uint8)}, CheckpointError, "is not JSON"),
    "nf4 of no shape": ("bnb-nf4", {NF4: state(shape=[64])}, CheckpointError, "expected the shape of a matrix and its"),
    "nf4 of another shape": ("bnb-nf4", {NF4: state(shape=[64, 256])}, TensorError, "half a byte for each of the"),
    "nf4 without blocks": ("bnb-nf4", {NF4: state(blocksize=0)}, CheckpointError, "expected the shape of a matrix"),
    "nf4 infinite": ("bnb-nf4", {NF4: state(nested_offset=float("inf"))}, CheckpointError, "expected a number"),
    "nf4 of a huge offset": ("bnb-nf4", {NF4: state(nested_offset=10**400)}, CheckpointError, "expected a number"),
    "nf4 not downloaded": ("bnb-nf4", {NF4: torch.zeros(40, dtype=torch.uint8)}, CheckpointError, "download it first"),
    "int8 of another order": ("bnb-int8", {"weight_format": torch.tensor(2)}, TensorError, "expected 0, the order of"),
    "int8 of orders": ("bnb-int8", {"weight_format": torch.zeros(2).byte()}, TensorError, "expected one number"),
    "int8 of no matrix": ("bnb-int8", {"weight": torch.ones(64).char()}, TensorError, "expected a matrix"),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit_are_named(case: str, tmp_path: Path) -> None:
    method, changes, error, message = TENSORS[case]
    tensors = {name: value for name, value in (parts(method) | changes).items() if value is not None}
    with pytest.raises(error, match=message):
        opened(tmp_path, METHODS[method].config, tensors)


INT4 = METHODS["ct-int4"].config
GROUP = INT4["config_groups"]["group_0"]
CONFIGS: dict[str, tuple[str, Any, type[Exception], str]] = {
    "not an object": ("gptq-4", "gptq", CheckpointError, "quantization_config is 'gptq', expected an object"),
    "no method": ("gptq-4", {"bits": 4}, UnsupportedModelError, "quant_method is 'None'; edgellm reads"),
    "a method of others": ("gptq-4", {"quant_method": "quip"}, UnsupportedModelError, "is 'quip'; edgellm reads .*awq"),
    "groups of no size": (
        "gptq-4", {"quant_method": "gptq", "bits": 4, "group_size": 0}, CheckpointError, "group_size is 0, expected",
    ),
    "a group size in words": (
        "gptq-4", {"quant_method": "gptq", "bits": 4, "group_size": "32"}, CheckpointError, "group_size is '32'",
    ),
    "blocks of no size": (
        "fp8", {"quant_method": "fp8", "weight_block_size": [0, 1]}, CheckpointError, r"weight_block_size is \[0, 1\]",
    ),
    "no groups": ("ct-int4", {**INT4, "config_groups": {}}, CheckpointError, "config_groups is {}, expected"),
    "a preset": ("ct-int4", {**INT4, "config_groups": {"W4A16": ["Linear"]}}, UnsupportedModelError, "spelled out"),
    "targets": (
        "ct-int4", {**INT4, "config_groups": {"a": {**GROUP, "targets": "Linear"}}}, CheckpointError, "a list of names",
    ),
    "a structure of endless digits": (
        "ct-int4", {**INT4, "config_groups": {"a": {**GROUP, "weights": {
            "num_bits": 4, "strategy": "block", "block_structure": "1" * 5000 + "x128"}}}},
        CheckpointError, "expected two numbers of rows and columns",
    ),
    "no pattern": (
        "ct-int4", {**INT4, "config_groups": {"a": {**GROUP, "targets": ["re:["]}}}, CheckpointError, "regular expr",
    ),
    "no such layer": (
        "ct-int4", {**INT4, "config_groups": {"a": {**GROUP, "targets": ["x"]}, "b": {**GROUP, "targets": ["re:y"]}}},
        TensorError, "w is quantized, and no target",
    ),
    "a group without weights": (
        "ct-int4", {**INT4, "config_groups": {"a": {"targets": ["Linear"]}}}, TensorError, "weights of its group in",
    ),
    "sizes of mixed groups": (
        "ct-int4", {**INT4, "config_groups": {"a": {**GROUP, "weights": {"num_bits": 4, "strategy": "group"}}}},
        CheckpointError, "group_size is None, expected a number of columns",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFIGS)
def test_configs_that_cannot_be_are_named(case: str, tmp_path: Path) -> None:
    method, config, error, message = CONFIGS[case]
    with pytest.raises(error, match=message):
        opened(tmp_path, config, parts(method))


def test_patterns_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not run is none: a single scheme is that of all layers."""
    monkeypatch.setattr(patterns, "SECONDS", 1)
    forever = {**GROUP, "targets": ["re:(.+)+X"]}
    tensors = {f"{'w' * 60}.{name}": value.contiguous().clone() for name, value in parts("ct-int4").items()}
    save_file(tensors, tmp_path / "w")

    def read(groups: Mapping[str, Any]) -> Mapping[str, Any]:
        config = {"quantization_config": {**INT4, "config_groups": groups}}
        return widened(config, read_safetensors(tmp_path / "w"))

    with pytest.raises(UnsupportedModelError, match=r"config_groups is .* patterns that match in"):
        read({"a": forever, "b": GROUP})
    assert len(read({"a": forever})) == 1


def test_layers_get_the_scheme_that_names_them_before_that_of_their_class(tmp_path: Path) -> None:
    other = {**GROUP, "targets": ["Linear"], "weights": {"num_bits": 8, "strategy": "group", "group_size": 64}}
    for target in ("w", "re:.*w$", "re:w"):
        groups = {"a": other, "b": {**GROUP, "targets": [target]}}
        found = opened(tmp_path, {**INT4, "config_groups": groups}, parts("ct-int4"))
        np.testing.assert_array_equal(found["w.weight"].rows(0, 64), METHODS["ct-int4"].pack(WEIGHT)[1])


def test_columns_ordered_by_their_inputs_say_their_groups(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(128)
    numbers = parts("ct-int4")
    plain = opened(tmp_path, INT4, numbers)["w.weight"].rows(0, 64)
    scales = numbers["weight_scale"].float().numpy()
    index = (np.arange(128) // 32)[order]
    shown = opened(tmp_path, INT4, numbers | {"weight_g_idx": torch.from_numpy(index).int()})["w.weight"]
    np.testing.assert_allclose(shown.rows(0, 64), plain / np.repeat(scales, 32, 1) * scales[:, index], rtol=1e-6)
    assert shown.integers(0, 1) is None
    unordered = opened(tmp_path, INT4, numbers | {"weight_g_idx": torch.full((128,), -1).int()})["w.weight"]
    np.testing.assert_array_equal(unordered.rows(0, 64), plain)
    assert unordered.integers(0, 1) is not None


def test_a_bias_of_zeros_need_not_be_taken_and_another_must(tmp_path: Path) -> None:
    config = METHODS["gptq-4"].config
    assert isinstance(opened(tmp_path, config, parts("gptq-4"))["w.bias"], UnusedBias)
    found = opened(tmp_path, config, parts("gptq-4") | {"bias": torch.ones(64).half()})["w.bias"]
    assert not isinstance(found, UnusedBias)
    np.testing.assert_array_equal(found.rows(0, 64), 1)


def test_what_is_said_of_activations_and_caches_is_left_out(tmp_path: Path) -> None:
    beside = {"input_scale": torch.ones(1), "k_scale": torch.ones(1), "weight_zero_point": None}
    tensors = {name: value for name, value in (parts("ct-int8") | beside).items() if value is not None}
    assert set(opened(tmp_path, METHODS["ct-int8"].config, tensors)) == {"w.weight"}
    scales = {"activation_scale": torch.ones(1)}
    assert set(opened(tmp_path, METHODS["fp8"].config, parts("fp8") | scales)) == {"w.weight"}
