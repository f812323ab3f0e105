"""Integers times integers in other ways than RowFormat's, where calibration text shows what the activations are like:
where all rows have like sizes, their range can be a constant; where they are hardly ever below zero, nearly all levels
lie above it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.onnx.builder import MICROSOFT, GraphBuilder
from edgellm_export.quantize.formats import HIGHEST_LEVEL, Bias, MatrixFormat, RowFormat

# The largest of a row may be this much larger than that of the usual row. A norm's outputs are (1.2 to 1.8 on BERT's
# relatives); what an activation function gives is not in trained models, where some rows are 8 times as large.
ALIKE = 2.0
ROOM = 1.15  # beyond the range of calibration text
SMALL_ROWS = 5  # percent of the rows whose peak may be too small for the levels to reach exactly from `low`
MOST_BELOW = 96  # levels below zero; with more there is little to win


@dataclass(frozen=True)
class StaticFormat(RowFormat):
    """RowFormat with a constant range in place of each row's largest magnitude. Nothing has to be found in the graph,
    the kernel adds the bias, and the range may lie to one side of zero. Values beyond `low` (below 0) or `high` become
    the nearest of them."""

    name: str = "int8 x int8, fixed range"
    low: float = -1.0
    high: float = 1.0

    @property
    def step(self) -> np.float32:
        """Between levels."""
        return np.float32((self.high - self.low) / HIGHEST_LEVEL)

    @property
    def zero(self) -> np.uint8:
        return np.uint8(np.rint(-self.low / self.step))

    def multiply(
        self, g: GraphBuilder, x: ir.Value, stored: tuple[ir.Value, ...], bias: Bias, name: str, rows: int, columns: int
    ) -> ir.Value:
        weights, scales = stored
        place = f"{x.name}/fixed"
        zero = g.constant(f"{place}/zero", np.array(self.zero))
        step = g.constant(f"{place}/step", np.array(self.step))
        known = g.lookup(place)
        if known is None:
            known = (g.op("QuantizeLinear", x, step, zero, name=f"{place}/QuantizeLinear"),)
            g.remember(place, known)
        inputs: list[ir.Value | None] = [known[0], weights, step, scales, zero]
        if bias is not None:
            inputs += [None, g.array(f"{name}.bias", bias)]
        return g.op("MatMulIntegerToFloat", *inputs, domain=MICROSOFT, name=f"{name}/MatMulInteger")

    def activations(self, x: FloatArray) -> FloatArray:
        zero = np.float32(self.zero)
        levels = np.clip(np.rint(x / self.step) + zero, 0, HIGHEST_LEVEL)
        return np.asarray((levels - zero) * self.step, np.float32)


def with_static(
    candidates: Sequence[MatrixFormat], inputs: FloatArray, shift: FloatArray | None = None
) -> Sequence[MatrixFormat]:
    """`candidates`, and before RowFormat a fixed range where the rows of inputs [tokens, columns] are alike, or were
    before `shift` [columns] was subtracted."""
    if not any(type(form) is RowFormat for form in candidates):
        return candidates
    if not _alike(inputs) and (shift is None or not _alike(inputs + shift)):
        return candidates
    low, high = (ROOM * float(end) for end in (min(inputs.min(), 0), max(inputs.max(), 0)))
    return (StaticFormat(low=low, high=high), *candidates)


def _alike(rows: FloatArray) -> bool:
    """Not where all are zeros or some are not numbers."""
    peaks = np.abs(rows).max(axis=1)
    return bool(0 < peaks.max() <= ALIKE * np.median(peaks))


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
