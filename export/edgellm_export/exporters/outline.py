"""What a package will be made of, before any weight is read: tensors without content, and the formats that calibration
usually chooses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.integers import UnusedBias
from edgellm_export.checkpoint.tensors import LazyTensor, ZeroTensor
from edgellm_export.exporters.contract import Choices
from edgellm_export.onnx.builder import Projection
from edgellm_export.quantize import scheme_for
from edgellm_export.quantize.choice import PreparedMatrix
from edgellm_export.quantize.formats import MatrixFormat
from edgellm_export.quantize.schemes import FloatScheme, IntegerScheme

IN_A_LAYER = re.compile(r"\.\d+/")  # of a node's place: only layers are calibrated, not the head
SOFTMAX, LONG, OTHERS = -1, 1, 0  # of an int8 scheme's candidates, the one that most matrices of a kind get


def hollow(checkpoint: Checkpoint) -> Checkpoint:
    """The same without its weights."""

    def hollowed(tensors: Mapping[str, LazyTensor]) -> Mapping[str, LazyTensor]:
        return {name: _hollow(name, tensor) for name, tensor in tensors.items()}

    return replace(checkpoint, tensors=hollowed(checkpoint.tensors), steps=hollowed(checkpoint.steps))


def _hollow(name: str, tensor: LazyTensor) -> LazyTensor:
    zeros = ZeroTensor(name, tensor.shape)
    return UnusedBias(name, tensor.shape, zeros) if isinstance(tensor, UnusedBias) else zeros


def is_calibrated(choices: Choices, checkpoint: Checkpoint) -> bool:
    """Whether there is something to round, and a tokenizer to make tokens of text with."""
    candidates = scheme_for(choices.precision, choices.target).candidates
    return choices.calibrate and bool(candidates) and "tokenizer.json" in checkpoint.files


def expected_formats(choices: Choices, projections: Sequence[Projection]) -> dict[str, MatrixFormat]:
    """By layer name. Measured on SmolLM2-135M and MiniLM: queries and keys get the finest format, matrices with more
    columns than rows the one before, the others the fastest; nine in ten are as expected, and between the formats lie
    12% of the bytes."""
    candidates = scheme_for(choices.precision, choices.target).candidates
    formats = {}
    for projection in projections:
        if IN_A_LAYER.search(projection.name):
            rows, columns = projection.weight.shape
            kind = SOFTMAX if projection.into_softmax else LONG if columns > rows else OTHERS
            formats[projection.name] = candidates[min(kind, len(candidates) - 1)]
    return formats


def expected_scheme(
    choices: Choices, checkpoint: Checkpoint, projections: Sequence[Projection]
) -> FloatScheme | IntegerScheme:
    """`projections`: the linear layers of all graphs."""
    scheme = scheme_for(choices.precision, choices.target)
    if not is_calibrated(choices, checkpoint):
        return scheme
    formats = expected_formats(choices, projections)
    return scheme.calibrated({name: PreparedMatrix(form, 0.0, Path()) for name, form in formats.items()})
