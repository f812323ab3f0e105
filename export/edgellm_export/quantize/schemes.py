"""How weights are stored and multiplied: one class per kind, one row per precision in `scheme_for`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.onnx.builder import MICROSOFT, GraphBuilder, Produced, Region
from edgellm_export.quantize.calibrated import PreparedMatrix
from edgellm_export.quantize.carried import carried, carries, has_fewer_bits
from edgellm_export.quantize.formats import FLOAT32, Arrays, Bias, BlockFormat
from edgellm_export.quantize.grid import nearest
from edgellm_export.quantize.pieces import pieces

FLOAT16 = np.dtype(np.float16)


@dataclass(frozen=True)
class FloatScheme:
    """Stores a matrix [N, K] in `storage` and emits the nodes that multiply by it in `activation`, the dtype of the
    values between nodes. Where they differ, a Cast that is folded once at load. There is nothing to calibrate."""

    name: str
    storage: np.dtype[Any]
    activation: np.dtype[Any]

    def linear(
        self, g: GraphBuilder, x: ir.Value, weight: LazyTensor, bias: Bias, name: str, *, outer: bool = False
    ) -> ir.Value:
        """x @ weight.T + bias. x: [..., K]. `outer` marks the head: the last layer to touch a token deserves more
        bits."""
        y = g.op("FusedMatMul", x, self._matrix(g, weight), domain=MICROSOFT, transB=1, name=f"{name}/MatMul")
        if bias is None:
            return y
        return g.op("Add", y, g.array(f"{name}.bias", bias.astype(self.activation)), name=f"{name}/Add")

    def embedding(self, g: GraphBuilder, ids: ir.Value, weight: LazyTensor, name: str) -> ir.Value:
        """Rows of weight. ids: [B, S] int64. Returns [B, S, K]."""
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
class IntegerScheme:
    """Integers. Matrices that calibration has `prepared` are as it left them; others are rounded to `inner`.
    Embedding and head are rounded to `outer`; a tied pair shares its bytes."""

    name: str
    inner: BlockFormat
    outer: BlockFormat
    prepared: Mapping[str, PreparedMatrix] = field(default_factory=dict)

    @property
    def activation(self) -> np.dtype[Any]:
        return self.inner.activation

    def linear(
        self, g: GraphBuilder, x: ir.Value, weight: LazyTensor, bias: Bias, name: str, *, outer: bool = False
    ) -> ir.Value:
        prepared, form = self.prepared.get(name), self.form_of(name, weight, outer=outer)
        if prepared is None:
            stored = _store(g, form, weight, lambda: _rounded_pieces(form, weight))
        else:
            stored = _store(g, form, weight, lambda: iter([prepared.arrays()]))
        return form.multiply(g, x, stored, bias, name, *weight.shape)

    def form_of(self, name: str, weight: LazyTensor, *, outer: bool) -> BlockFormat:
        """How the matrix of a layer is stored: as `outer`, too, where only that holds the checkpoint's own integers: in
        its smaller blocks, or of more bits than the checkpoint has, as numbers of MXFP4 are further from each other the
        larger they are."""
        if name in self.prepared:
            return self.prepared[name].form
        smaller = self.outer.bits == self.inner.bits and self.outer.block_size < self.inner.block_size
        more = self.outer.bits > self.inner.bits and has_fewer_bits(weight, self.inner.bits)
        if outer or ((smaller or more) and carries(weight, self.outer.grid) and not carries(weight, self.inner.grid)):
            return self.outer
        return self.inner

    def embedding(self, g: GraphBuilder, ids: ir.Value, weight: LazyTensor, name: str) -> ir.Value:
        form, (rows, columns) = self.outer, weight.shape
        quants, scales = _store(g, form, weight, lambda: _rounded_pieces(form, weight))
        region = g.stored[str(quants.name)].region
        flat = g.view(region, f"{weight.name}.rows", (rows, int(np.prod(region.shape[1:]))))
        y = g.op(
            "GatherBlockQuantized", flat, ids, scales, domain=MICROSOFT, name=f"{name}/GatherBlockQuantized",
            bits=form.bits, block_size=form.block_size, gather_axis=0, quantize_axis=1,
        )  # fmt: skip
        if columns % form.block_size == 0:
            return y
        return g.op("Slice", y, g.ints(0), g.ints(columns), g.ints(2), name=f"{name}/Slice")


WeightScheme = FloatScheme | IntegerScheme


def scheme_for(precision: str, target: str) -> WeightScheme:
    """The scheme of a precision on a target; of "mixed", that of its 8 bits. CUDA graphs compute in float16, CPU graphs
    in float32."""
    activation = activation_of(target)
    match precision:
        case "fp32":
            return FloatScheme("float32", FLOAT32, FLOAT32)
        case "fp16":
            return FloatScheme("float16", FLOAT16, activation)
        case "int8" | "mixed":
            # Not blocks of 128: ONNX Runtime's kernel rounds a row otherwise when it has other neighbours.
            size = 64 if target == "cpu" else 32
            inner, outer = (BlockFormat(8, each, True, activation) for each in (size, 32))
            name = f"blockwise-{size}-symmetric"
            return IntegerScheme(name if precision == "int8" else f"{name}, blockwise-32-asymmetric", inner, outer)
        case "int4":
            return IntegerScheme("blockwise-32-asymmetric", four_bits(target), BlockFormat(8, 32, True, activation))
    raise AssertionError(f"no scheme for {precision}")


def activation_of(target: str) -> np.dtype[Any]:
    """The dtype of the values between nodes."""
    return FLOAT32 if target == "cpu" else FLOAT16


def four_bits(target: str) -> BlockFormat:
    """How int4, and "mixed" where it pays, stores the matrices of layers."""
    return BlockFormat(4, 32, False, activation_of(target))


def _store(
    g: GraphBuilder, form: BlockFormat, weight: LazyTensor, pieces: Callable[[], Iterator[Arrays]]
) -> tuple[ir.Value, ...]:
    """The initializers of a matrix; those of a tied one are there already."""
    regions = form.regions(weight.name, *weight.shape)
    if regions[0].name in g.stored:
        return tuple(g.stored[region.name].value for region in regions)
    return g.store(Produced(regions, pieces))


def _rounded_pieces(form: BlockFormat, weight: LazyTensor) -> Iterator[Arrays]:
    """Integers that the checkpoint holds already stay as they are."""
    known = carries(weight, form.grid)
    for start, stop in pieces(weight):
        codes = carried(weight, form.grid, start, stop) if known else None
        yield form.arrays(nearest(weight.rows(start, stop), form.grid) if codes is None else codes)


def _float_pieces(weight: LazyTensor, dtype: np.dtype[Any]) -> Iterator[Arrays]:
    for start, stop in pieces(weight):
        yield (np.ascontiguousarray(weight.rows(start, stop), dtype),)
