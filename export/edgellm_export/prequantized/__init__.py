"""Checkpoints that are quantized already: their stored tensors become matrices under their plain names.

A file for each method, a row for each in METHODS; `contract.py` has what they share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.checkpoint.integers import QuantizedTensor
from edgellm_export.checkpoint.tensors import LazyTensor, Transposed
from edgellm_export.prequantized import awq, bitnet, bitsandbytes, compressed_tensors, fp8, gptq, mxfp4
from edgellm_export.prequantized.contract import ORIGINAL, Options, Stored, StoredTensor

METHODS: Mapping[str, Callable[[Options, Stored], dict[str, LazyTensor]]] = {
    "awq": awq.read,
    "bitnet": bitnet.read,
    "bitsandbytes": bitsandbytes.read,
    "compressed-tensors": compressed_tensors.read,
    "fp8": fp8.read,
    "gptq": gptq.read,
    "mxfp4": mxfp4.read,
    "mxfp8": fp8.read,
}
KEY = "quantization_config"
TRACES = (".qweight", ".weight_packed", ".weight_scale", ".weight_scale_inv", ".weight.absmax", ".SCB")
TRANSPOSED = ("gpt2",)  # families whose checkpoints hold a layer's matrix as [inputs, outputs]


def method_of(config: Mapping[str, Any]) -> str | None:
    """How a checkpoint was quantized, by its config.json; None where it was not."""
    given = config.get(KEY)
    if not given:
        return None
    if not isinstance(given, Mapping):
        raise CheckpointError(f"config.json: {KEY} is {given!r}, expected an object; {ORIGINAL}")
    if given.get("quant_method") is None and (given.get("load_in_8bit") or given.get("load_in_4bit")):
        return "bitsandbytes"  # as transformers does, for its older files
    return str(given.get("quant_method"))


def activations_of(config: Mapping[str, Any]) -> str | None:
    """The type that a quantized checkpoint rounds its layers' inputs to, None where it rounds none. Packages have a way
    of their own."""
    given = config[KEY]
    match method_of(config):
        case "fp8" | "mxfp8":
            return "fp8"
        case "bitnet":
            return "int8"
        case "bitsandbytes":
            return "int8" if given.get("load_in_8bit") else None
        case "compressed-tensors":
            return compressed_tensors.activations(given)
    return None


def widened(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> Mapping[str, LazyTensor]:
    """`tensors`, with matrices of numbers in place of what a quantized one was stored as. Raises CheckpointError,
    TensorError, or UnsupportedModelError for what edgellm does not read."""
    method = method_of(config)
    if method is None:
        _check_plain(tensors)
        return tensors
    if method not in METHODS:
        raise UnsupportedModelError(
            f"config.json: {KEY}.quant_method is {method!r}; edgellm reads checkpoints that were quantized by "
            f"{', '.join(METHODS)}; {ORIGINAL}"
        )
    stored = Stored(tensors)
    matrices = METHODS[method](Options(method, config[KEY]), stored)
    if not any(isinstance(tensor, QuantizedTensor) for tensor in matrices.values()):
        raise CheckpointError(
            f"config.json says that the checkpoint is quantized ({method}), and no tensor is; remove "
            f"{KEY} from config.json if its weights are plain numbers"
        )
    if config.get("model_type") in TRANSPOSED:
        matrices = {name: _as_stored(name, tensor) for name, tensor in matrices.items()}
    return {**stored.rest(), **matrices}


def _as_stored(name: str, tensor: LazyTensor) -> LazyTensor:
    return Transposed(name, tensor) if isinstance(tensor, QuantizedTensor) else tensor


def _check_plain(tensors: Mapping[str, StoredTensor]) -> None:
    found = next((name for name in tensors if name.endswith(TRACES)), None)
    if found is not None:
        raise CheckpointError(
            f"the checkpoint holds {found}, a part of a quantized matrix, and its config.json has no {KEY}; put the "
            f"content of quantize_config.json or quant_config.json there, with a quant_method, or else {ORIGINAL}"
        )
