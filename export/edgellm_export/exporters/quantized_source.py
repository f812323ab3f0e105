"""What became of the matrices of a checkpoint that was quantized already, for the report."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.package.report import QuantizedSource
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.integers import quantized_in
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.onnx.builder import Projection
from edgellm_export.quantize import FloatScheme, IntegerScheme
from edgellm_export.quantize.carried import carries


def quantized_source(
    checkpoint: Checkpoint, projections: Sequence[Projection], scheme: FloatScheme | IntegerScheme
) -> QuantizedSource | None:
    """`projections`: the linear layers of all graphs. None where nothing was quantized."""
    method, quantized = checkpoint.source.get("quantized"), _quantized(checkpoint)
    if method is None:
        return None
    activations = checkpoint.source.get("activations")
    layers = {each.name: each.weight for each in projections if any(quantized_in(each.weight))}
    seen = {tensor.name for weight in layers.values() for tensor in quantized_in(weight)}
    lookups = {name: tensor for name, tensor in quantized.items() if name not in seen}
    if isinstance(scheme, FloatScheme):
        return QuantizedSource(str(method), widened=(*layers, *lookups), activations=activations)
    heads = {each.name for each in projections if each.outer}
    kept = [name for name, weight in layers.items() if carries(weight, scheme.form_of(name, outer=name in heads).grid)]
    kept += [name for name, weight in lookups.items() if carries(weight, scheme.outer.grid)]
    rounded = tuple(name for name in (*layers, *lookups) if name not in kept)
    return QuantizedSource(str(method), tuple(kept), rounded, activations=activations)


def _quantized(checkpoint: Checkpoint) -> dict[str, LazyTensor]:
    return {tensor.name: tensor for tensor in checkpoint.tensors.values() if any(quantized_in(tensor))}
