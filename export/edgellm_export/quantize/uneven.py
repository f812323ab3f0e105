"""Integers times integers where activations are hardly ever below zero: then nearly all levels lie above it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.onnx.builder import GraphBuilder
from edgellm_export.quantize.formats import HIGHEST_LEVEL, MatrixFormat, RowFormat

SMALL_ROWS = 5  # percent of the rows whose peak may be too small for the levels to reach exactly from `low`
MOST_BELOW = 96  # levels below zero; with more there is little to win


@dataclass(frozen=True)
class UnevenFormat(RowFormat):
    """RowFormat for what GELU, ReLU and their like give: `below` levels below zero, the others above, up to the largest
    value of the row. Half the step of RowFormat, and one node less over all values.

    low: what values do not fall below. A row's range is at least so large that its levels reach from there.
    """

    name: str = "int8 x int8 per row, uneven"
    below: int = 0
    low: float = 0.0

    @property
    def zero(self) -> np.uint8:
        return np.uint8(self.below)

    @property
    def floor(self) -> np.float32:
        """The smallest peak of a row that the levels are spread over."""
        return np.float32(-self.low * (HIGHEST_LEVEL - self.below) / self.below if self.below else 0)

    def peak(self, g: GraphBuilder, x: ir.Value, place: str) -> ir.Value:
        largest = g.op("ReduceMax", x, g.ints(-1), name=f"{place}/ReduceMax", keepdims=1)
        return g.op("Max", largest, g.constant(f"{place}/floor", np.array(self.floor)), name=f"{place}/Max")

    def activations(self, x: FloatArray) -> FloatArray:
        step = np.maximum(x.max(axis=1, keepdims=True), self.floor) * self.step
        levels = np.clip(np.rint(x / np.where(step == 0, 1, step)), -self.below, HIGHEST_LEVEL - self.below)
        return np.asarray(levels * step, np.float32)


def with_uneven(candidates: Sequence[MatrixFormat], inputs: FloatArray) -> Sequence[MatrixFormat]:
    """`candidates`, with UnevenFormat in place of RowFormat where inputs [tokens, columns] hardly fall below zero."""
    low, peaks = min(float(inputs.min()), 0.0), inputs.max(axis=1)
    if not (math.isfinite(low) and np.isfinite(peaks).all()):  # a damaged model, which the comparison will refuse
        return candidates
    usual = float(np.percentile(peaks, SMALL_ROWS))
    if usual <= 0:
        return candidates
    below = math.ceil(HIGHEST_LEVEL * -low / (usual - low))
    if below > MOST_BELOW:
        return candidates
    uneven = UnevenFormat(below=below, low=low)
    return [uneven if type(form) is RowFormat else form for form in candidates]
