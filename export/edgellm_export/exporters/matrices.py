"""How matrices are stored, and what became of those that the checkpoint held quantized: for the report."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.package.report import MatrixReport, QuantizedSource
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.integers import quantized_in
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.onnx.builder import Projection
from edgellm_export.quantize import FloatScheme, WeightScheme
from edgellm_export.quantize.carried import carries


def matrix_reports(projections: Sequence[Projection], scheme: WeightScheme) -> tuple[MatrixReport, ...]:
    """Of the linear layers that have integers, in order."""
    if isinstance(scheme, FloatScheme):
        return ()
    found = []
    for each in projections:
        form, prepared = scheme.form_of(each.name, each.weight, outer=each.outer), scheme.prepared.get(each.name)
        error = None if prepared is None else prepared.error
        found.append(MatrixReport(each.name, form.name, error, form.bits, form.block_size))
    return tuple(found)


def quantized_source(
    checkpoint: Checkpoint, projections: Sequence[Projection], scheme: WeightScheme
) -> QuantizedSource | None:
    """`projections`: the linear layers of all graphs. None where nothing was quantized."""
    method, quantized = checkpoint.source.get("quantized"), _quantized(checkpoint)
    if method is None:
        return None
    activations = checkpoint.source.get("activations")
    layers = {each.name: each.weight for each in projections if any(quantized_in(each.weight))}
    seen = {name for weight in layers.values() for name in _stored(weight)}
    lookups = {name: tensor for name, tensor in quantized.items() if not seen.intersection(_stored(tensor))}
    if isinstance(scheme, FloatScheme):
        return QuantizedSource(str(method), widened=(*layers, *lookups), activations=activations)
    heads = {each.name for each in projections if each.outer}
    forms = {name: scheme.form_of(name, weight, outer=name in heads) for name, weight in layers.items()}
    kept = [name for name, weight in layers.items() if carries(weight, forms[name].grid)]
    kept += [name for name, weight in lookups.items() if carries(weight, scheme.outer.grid)]
    rounded = tuple(name for name in (*layers, *lookups) if name not in kept)
    return QuantizedSource(str(method), tuple(kept), rounded, activations=activations)


def _stored(tensor: LazyTensor) -> set[str]:
    """What the checkpoint calls the quantized tensors that it shows numbers of: one name for all experts of a stack."""
    return {each.name for each in quantized_in(tensor)}


def _quantized(checkpoint: Checkpoint) -> dict[str, LazyTensor]:
    return {tensor.name: tensor for tensor in checkpoint.tensors.values() if any(quantized_in(tensor))}
