"""How a matrix of integers is stored and multiplied: what a kernel of ONNX Runtime takes, and what it makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.onnx.builder import MICROSOFT, GraphBuilder, Region
from edgellm_export.quantize import blockwise
from edgellm_export.quantize.grid import Codes, Grid

Arrays = tuple[npt.NDArray[Any], ...]
Bias = npt.NDArray[np.float32] | None
FLOAT32 = np.dtype(np.float32)
INT8_LEVELS, HIGHEST_LEVEL = 127, 255  # of int8 on each side of zero; of uint8


class MatrixFormat(Protocol):
    """Stores a matrix [N, K] of integers and emits the nodes that multiply by it."""

    @property
    def name(self) -> str:
        """For the report."""

    @property
    def grid(self) -> Grid: ...

    def regions(self, weight: str, rows: int, columns: int) -> tuple[Region, ...]:
        """What is stored for the matrix called `weight`."""

    def arrays(self, codes: Codes) -> Arrays:
        """The contents of the regions for some rows of the matrix, or for all where `whole`."""

    @property
    def whole(self) -> bool:
        """Whether the layout needs all rows of a matrix at once."""

    def multiply(
        self, g: GraphBuilder, x: ir.Value, stored: tuple[ir.Value, ...], bias: Bias, name: str, rows: int, columns: int
    ) -> ir.Value:
        """x @ weight.T + bias. x: [..., columns]."""

    def activations(self, x: FloatArray) -> FloatArray:
        """x [tokens, columns] as the kernel rounds it."""


@dataclass(frozen=True)
class BlockFormat:
    """MatMulNBits: a scale per block of weights. With float32 values, the kernel rounds each block of a token's
    activations to int8 too, with a scale of its own."""

    bits: int
    block_size: int
    symmetric: bool
    activation: np.dtype[Any]
    whole: bool = False

    @property
    def name(self) -> str:
        return f"{self.bits}-bit blocks of {self.block_size}" + ("" if self.symmetric else ", zero points")

    @property
    def grid(self) -> Grid:
        return Grid(self.bits, self.block_size, self.symmetric)

    def regions(self, weight: str, rows: int, columns: int) -> tuple[Region, ...]:
        blocks = -(-columns // self.block_size)
        quants = Region(f"{weight}.quants", np.dtype(np.uint8), (rows, blocks, self.block_size * self.bits // 8))
        scales = Region(f"{weight}.scales", self.activation, (rows, blocks))
        if self.symmetric:
            return quants, scales
        return quants, scales, Region(f"{weight}.zero_points", np.dtype(np.uint8), (rows, -(-blocks * self.bits // 8)))

    def arrays(self, codes: Codes) -> Arrays:
        blocks = blockwise.arrange(codes, self.grid)
        arrays = (blocks.quants, blocks.scales.astype(self.activation))
        return arrays if blocks.zero_points is None else (*arrays, blocks.zero_points)

    def multiply(
        self, g: GraphBuilder, x: ir.Value, stored: tuple[ir.Value, ...], bias: Bias, name: str, rows: int, columns: int
    ) -> ir.Value:
        quants, scales, zero_points = (*stored, None)[:3]
        fifth = None if bias is None else g.array(f"{name}.bias", bias.astype(self.activation))
        inputs = [x, quants, scales, zero_points, None, fifth]
        while inputs[-1] is None:
            inputs.pop()
        return g.op(
            "MatMulNBits", *inputs, domain=MICROSOFT, name=f"{name}/MatMulNBits",
            K=columns, N=rows, bits=self.bits, block_size=self.block_size,
            accuracy_level=4 if self.activation == FLOAT32 else 0,
        )  # fmt: skip

    def activations(self, x: FloatArray) -> FloatArray:
        if self.activation != FLOAT32:
            return x
        rounded = np.empty_like(x)
        for start, stop in self.grid.blocks(x.shape[1]):
            rounded[:, start:stop] = _int8_rows(x[:, start:stop])
        return rounded


@dataclass(frozen=True)
class RowFormat:
    """Integers times integers: a scale per output of the matrix, and per token one scale for its activations, found in
    the graph. A token's result does not depend on the others, unlike with DynamicQuantizeMatMul's one scale for all.

    Activations are uint8 around 128: that is what the fast kernels multiply by int8.
    """

    whole: bool = True
    name: str = "int8 x int8 per row"

    @property
    def grid(self) -> Grid:
        return Grid(8, None, symmetric=True)

    def regions(self, weight: str, rows: int, columns: int) -> tuple[Region, ...]:
        return (
            Region(f"{weight}.int8", np.dtype(np.int8), (columns, rows)),
            Region(f"{weight}.scales", FLOAT32, (rows,)),
        )

    def arrays(self, codes: Codes) -> Arrays:
        signed = (codes.levels ^ np.uint8(self.grid.middle)).view(np.int8)
        return np.ascontiguousarray(signed.T), codes.scales[:, 0]

    def multiply(
        self, g: GraphBuilder, x: ir.Value, stored: tuple[ir.Value, ...], bias: Bias, name: str, rows: int, columns: int
    ) -> ir.Value:
        weights, scales = stored
        levels, peak, step, zero = self.quantized(g, x)
        product = g.op(
            "MatMulIntegerToFloat", levels, weights, step, scales, zero, domain=MICROSOFT, name=f"{name}/MatMulInteger"
        )
        y = g.op("Mul", product, peak, name=f"{name}/Rescale")
        return y if bias is None else g.op("Add", y, g.array(f"{name}.bias", bias), name=f"{name}/Add")

    @property
    def zero(self) -> np.uint8:
        """The level of zero."""
        return np.uint8(128)

    @property
    def step(self) -> np.float32:
        """Between levels, as a share of the row's peak."""
        return np.float32(1 / (HIGHEST_LEVEL - int(self.zero)))

    def peak(self, g: GraphBuilder, x: ir.Value, place: str) -> ir.Value:
        """What a row's highest level stands for: its largest magnitude. [..., 1]."""
        magnitude = g.op("Abs", x, name=f"{place}/Abs")
        return g.op("ReduceMax", magnitude, g.ints(-1), name=f"{place}/ReduceMax", keepdims=1)

    def quantized(self, g: GraphBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
        """uint8 levels of x, each row's peak, the step, and the level of zero. Layers that read the same x in the same
        way share the nodes.

        A row whose peak is zero is divided by zero; whatever level that becomes, the product is multiplied by the peak.
        """
        step = g.constant(f"/constants/int8/step{self.zero}", np.array(self.step))
        zero = g.constant(f"/constants/int8/zero{self.zero}", np.array(self.zero))
        place = f"{x.name}/quantized{self.zero}"
        known = g.lookup(place)
        if known is None:
            peak = self.peak(g, x, place)
            share = g.op("Div", x, peak, name=f"{place}/Div")
            known = (g.op("QuantizeLinear", share, step, zero, name=f"{place}/QuantizeLinear"), peak)
            g.remember(place, known)
        return known[0], known[1], step, zero

    def activations(self, x: FloatArray) -> FloatArray:
        return _int8_rows(x)


def _int8_rows(x: FloatArray) -> FloatArray:
    """Each row rounded to 255 levels up to its largest magnitude."""
    step = np.abs(x).max(axis=1, keepdims=True) / np.float32(INT8_LEVELS)
    return np.asarray(np.rint(x / np.where(step == 0, 1, step)) * step, np.float32)
