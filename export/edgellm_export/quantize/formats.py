"""How a matrix of integers is stored and multiplied: what MatMulNBits takes, and what it makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.onnx.builder import MICROSOFT, GraphBuilder, Region
from edgellm_export.onnx.writer import padded
from edgellm_export.quantize import blockwise
from edgellm_export.quantize.grid import Codes, Grid

Arrays = tuple[npt.NDArray[Any], ...]
Bias = npt.NDArray[np.float32] | None
FLOAT32 = np.dtype(np.float32)
INT8_LEVELS = 127  # on each side of zero


@dataclass(frozen=True)
class BlockFormat:
    """A scale per block of weights. With float32 values, the kernel rounds each block of a token's activations to int8
    too, with a scale of its own."""

    bits: int
    block_size: int
    symmetric: bool
    activation: np.dtype[Any]

    @property
    def name(self) -> str:
        """For the report."""
        return f"{self.bits}-bit blocks of {self.block_size}" + ("" if self.symmetric else ", zero points")

    @property
    def grid(self) -> Grid:
        return Grid(self.bits, self.block_size, self.symmetric)

    def regions(self, weight: str, rows: int, columns: int) -> tuple[Region, ...]:
        """What is stored for the matrix called `weight`."""
        blocks = -(-columns // self.block_size)
        quants = Region(f"{weight}.quants", np.dtype(np.uint8), (rows, blocks, self.block_size * self.bits // 8))
        scales = Region(f"{weight}.scales", self.activation, (rows, blocks))
        if self.symmetric:
            return quants, scales
        return quants, scales, Region(f"{weight}.zero_points", np.dtype(np.uint8), (rows, -(-blocks * self.bits // 8)))

    def nbytes(self, rows: int, columns: int) -> int:
        """Of a matrix."""
        return sum(region.nbytes for region in self.regions("", rows, columns))

    def file_bytes(self, rows: int, columns: int) -> int:
        """What a matrix takes in a file."""
        return sum(map(padded, self.regions("", rows, columns)))

    def arrays(self, codes: Codes) -> Arrays:
        """The contents of the regions for some rows of the matrix."""
        blocks = blockwise.arrange(codes, self.grid)
        arrays = (blocks.quants, blocks.scales.astype(self.activation))
        return arrays if blocks.zero_points is None else (*arrays, blocks.zero_points)

    def multiply(
        self, g: GraphBuilder, x: ir.Value, stored: tuple[ir.Value, ...], bias: Bias, name: str, rows: int, columns: int
    ) -> ir.Value:
        """x @ weight.T + bias. x: [..., columns]."""
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
        """x [tokens, columns] as the kernel rounds it."""
        if self.activation != FLOAT32:
            return x
        rounded = np.empty_like(x)
        for start, stop in self.grid.blocks(x.shape[1]):
            rounded[:, start:stop] = _int8_rows(x[:, start:stop])
        return rounded


def _int8_rows(x: FloatArray) -> FloatArray:
    """Each row rounded to 255 levels up to its largest magnitude."""
    step = np.abs(x).max(axis=1, keepdims=True) / np.float32(INT8_LEVELS)
    return np.asarray(np.rint(x / np.where(step == 0, 1, step)) * step, np.float32)
