"""Integers times integers where activations are hardly ever below zero: then nearly all levels lie above it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgellm_export.graph import GraphBuilder
from edgellm_export.quantize.formats import MatrixFormat, RowFormat

FloatArray = npt.NDArray[np.float32]

LEVELS = 255
SMALL_ROWS = 5  # percent of the rows whose peak may be too small for the levels to reach exactly from `low`
MOST_BELOW = 96  # levels below zero; with more there is little to win


@dataclass(frozen=True)
class UnevenFormat(RowFormat):
    """RowFormat for what GELU, ReLU and their like give: `zero` levels below zero, the others above, up to the largest
    value of the row. Half the step of RowFormat, and one node less over all values.

    low: what values do not fall below. A row's range is at least so large that its levels reach from there.
    """

    name: str = "int8 x int8 per row, uneven"
    zero: int = 0
    low: float = 0.0

    @property
    def floor(self) -> np.float32:
        """The smallest peak of a row that the levels are spread over."""
        return np.float32(-self.low * (LEVELS - self.zero) / self.zero if self.zero else 0)

    @property
    def step(self) -> np.float32:
        return np.float32(1 / (LEVELS - self.zero))

    def quantized(self, g: GraphBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
        place = f"{x.name}/uneven"
        step = g.constant(f"{place}/step", np.array(self.step))
        zero = g.constant(f"{place}/zero", np.array(self.zero, np.uint8))
        known = g.lookup(place)
        if known is None:
            peak = g.op("ReduceMax", x, g.ints(-1), name=f"{place}/ReduceMax", keepdims=1)
            peak = g.op("Max", peak, g.constant(f"{place}/floor", np.array(self.floor)), name=f"{place}/Max")
            share = g.op("Div", x, peak, name=f"{place}/Div")
            known = (g.op("QuantizeLinear", share, step, zero, name=f"{place}/QuantizeLinear"), peak)
            g.remember(place, known)
        return known[0], known[1], step, zero

    def activations(self, x: FloatArray) -> FloatArray:
        step = np.maximum(x.max(axis=1, keepdims=True), self.floor) * self.step
        levels = np.clip(np.rint(x / np.where(step == 0, 1, step)), -self.zero, LEVELS - self.zero)
        return np.asarray(levels * step, np.float32)


def with_uneven(candidates: Sequence[MatrixFormat], inputs: FloatArray) -> Sequence[MatrixFormat]:
    """`candidates`, with UnevenFormat in place of RowFormat where inputs [tokens, columns] hardly fall below zero."""
    low = min(float(inputs.min()), 0.0)
    usual = float(np.percentile(inputs.max(axis=1), SMALL_ROWS))
    if not usual > 0:  # also where values are not numbers
        return candidates
    zero = math.ceil(LEVELS * -low / (usual - low))
    if zero > MOST_BELOW:
        return candidates
    uneven = UnevenFormat(zero=zero, low=low)
    return [uneven if type(form) is RowFormat else form for form in candidates]
