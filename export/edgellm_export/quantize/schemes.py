"""How weights are stored and multiplied: one class per kind, one row per precision in `scheme_for`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgellm_export.graph import MICROSOFT, GraphBuilder, Produced, Region
from edgellm_export.quantize import blockwise
from edgellm_export.tensors import LazyTensor

PIECE_ELEMENTS = 4 << 20  # weights handled at a time: 16 MiB of float32
Bias = npt.NDArray[np.float32] | None
FLOAT32, FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)


class WeightScheme(Protocol):
    """Stores a matrix [N, K] and emits the nodes that use it. `activation` is the dtype of the values between nodes."""

    @property
    def activation(self) -> np.dtype[Any]: ...

    @property
    def name(self) -> str: ...

    @property
    def calibrated(self) -> bool:
        """Whether channel scales make it closer to the original."""

    def linear(
        self, g: GraphBuilder, x: ir.Value, weight: LazyTensor, bias: Bias, name: str, *, outer: bool = False
    ) -> ir.Value:
        """x @ weight.T + bias. x: [..., K]. `outer` marks the head: the last layer to touch a token deserves more
        bits."""

    def embedding(self, g: GraphBuilder, ids: ir.Value, weight: LazyTensor, name: str) -> ir.Value:
        """Rows of weight. ids: [B, S] int64. Returns [B, S, K]."""


@dataclass(frozen=True)
class FloatScheme:
    """Weights in `storage`, multiplied in `activation`. Where they differ, a Cast that is folded once at load."""

    name: str
    storage: np.dtype[Any]
    activation: np.dtype[Any]
    calibrated: bool = False

    def linear(
        self, g: GraphBuilder, x: ir.Value, weight: LazyTensor, bias: Bias, name: str, *, outer: bool = False
    ) -> ir.Value:
        y = g.op("FusedMatMul", x, self._matrix(g, weight), domain=MICROSOFT, transB=1, name=f"{name}/MatMul")
        if bias is None:
            return y
        return g.op("Add", y, g.array(f"{name}.bias", bias.astype(self.activation)), name=f"{name}/Add")

    def embedding(self, g: GraphBuilder, ids: ir.Value, weight: LazyTensor, name: str) -> ir.Value:
        return g.op("Gather", self._matrix(g, weight), ids, axis=0, name=f"{name}/Gather")

    def _matrix(self, g: GraphBuilder, weight: LazyTensor) -> ir.Value:
        if weight.name in g.stored:
            stored = g.stored[weight.name].value
        else:
            region = Region(weight.name, self.storage, weight.shape)
            (stored,) = g.store(Produced((region,), lambda: _float_pieces(weight, self.storage)))
        if self.storage == self.activation:
            return stored
        return g.cast(stored, self.activation, f"/weights/{weight.name}/Cast")


@dataclass(frozen=True)
class BlockScheme:
    """Block-wise integers (MatMulNBits). Embedding and head take `outer_bits`; a tied pair shares its bytes."""

    name: str
    bits: int
    block_size: int
    symmetric: bool
    outer_bits: int
    activation: np.dtype[Any]
    calibrated: bool = True

    def linear(
        self, g: GraphBuilder, x: ir.Value, weight: LazyTensor, bias: Bias, name: str, *, outer: bool = False
    ) -> ir.Value:
        bits = self.outer_bits if outer else self.bits
        quants, scales, zero_points = self._store(g, weight, bits)
        fifth = None if bias is None else g.array(f"{name}.bias", bias.astype(self.activation))
        inputs = [x, quants, scales, zero_points, None, fifth]
        while inputs[-1] is None:
            inputs.pop()
        rows, columns = weight.shape
        return g.op(
            "MatMulNBits", *inputs, domain=MICROSOFT, name=f"{name}/MatMulNBits",
            K=columns, N=rows, bits=bits, block_size=self.block_size,
            accuracy_level=4 if self.activation == FLOAT32 else 0,
        )  # fmt: skip

    def embedding(self, g: GraphBuilder, ids: ir.Value, weight: LazyTensor, name: str) -> ir.Value:
        rows, columns = weight.shape
        quants, scales, _ = self._store(g, weight, self.outer_bits)
        region = g.stored[str(quants.name)].region
        flat = g.view(region, f"{weight.name}.rows", (rows, int(np.prod(region.shape[1:]))))
        y = g.op(
            "GatherBlockQuantized", flat, ids, scales, domain=MICROSOFT, name=f"{name}/GatherBlockQuantized",
            bits=self.outer_bits, block_size=self.block_size, gather_axis=0, quantize_axis=1,
        )  # fmt: skip
        if columns % self.block_size == 0:
            return y
        return g.op("Slice", y, g.ints(0), g.ints(columns), g.ints(2), name=f"{name}/Slice")

    def _store(self, g: GraphBuilder, weight: LazyTensor, bits: int) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        names = [f"{weight.name}.{part}" for part in ("quants", "scales", "zero_points")]
        if names[0] in g.stored:
            known = [g.stored[n].value if n in g.stored else None for n in names]
            assert known[0] is not None
            assert known[1] is not None
            return known[0], known[1], known[2]
        symmetric = self.symmetric or bits == 8
        rows, columns = weight.shape
        blocks = -(-columns // self.block_size)
        regions = [
            Region(names[0], np.dtype(np.uint8), (rows, blocks, self.block_size * bits // 8)),
            Region(names[1], self.activation, (rows, blocks)),
        ]
        if not symmetric:
            regions.append(Region(names[2], np.dtype(np.uint8), (rows, -(-blocks * bits // 8))))
        values = g.store(Produced(tuple(regions), lambda: self._pieces(weight, bits, symmetric)))
        return values[0], values[1], values[2] if len(values) > 2 else None

    def _pieces(self, weight: LazyTensor, bits: int, symmetric: bool) -> Iterator[tuple[npt.NDArray[Any], ...]]:
        for rows in _row_pieces(weight):
            part = blockwise.quantize(rows, bits=bits, block_size=self.block_size, symmetric=symmetric)
            arrays = (part.quants, part.scales.astype(self.activation))
            yield arrays if part.zero_points is None else (*arrays, part.zero_points)


def scheme_for(precision: str, target: str) -> WeightScheme:
    """The scheme of a precision on a target. CUDA graphs compute in float16, CPU graphs in float32."""
    activation = FLOAT32 if target == "cpu" else FLOAT16
    match precision:
        case "fp32":
            return FloatScheme("float32", FLOAT32, FLOAT32)
        case "fp16":
            return FloatScheme("float16", FLOAT16, activation)
        case "int8":
            return BlockScheme("blockwise-32-symmetric", 8, 32, True, 8, activation)
        case "int4":
            return BlockScheme("blockwise-32-asymmetric", 4, 32, False, 8, activation)
    raise AssertionError(f"no scheme for {precision}")


def _row_pieces(weight: LazyTensor) -> Iterator[npt.NDArray[np.float32]]:
    step = max(1, PIECE_ELEMENTS // max(1, int(np.prod(weight.shape[1:]))))
    for start in range(0, weight.shape[0], step):
        yield weight.rows(start, min(start + step, weight.shape[0]))


def _float_pieces(weight: LazyTensor, dtype: np.dtype[Any]) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    for rows in _row_pieces(weight):
        yield (np.ascontiguousarray(rows, dtype),)
