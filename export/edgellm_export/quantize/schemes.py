"""How weights are stored and multiplied: one class per kind, one row per precision in `scheme_for`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.onnx.builder import MICROSOFT, GraphBuilder, Produced, Region
from edgellm_export.quantize.carried import carried, carries
from edgellm_export.quantize.choice import PreparedMatrix
from edgellm_export.quantize.formats import FLOAT32, Arrays, Bias, BlockFormat, MatrixFormat, RowFormat
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
    candidates: tuple[MatrixFormat, ...] = ()

    def calibrated(self, prepared: Mapping[str, PreparedMatrix]) -> FloatScheme:
        assert not prepared
        return self

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
    Embedding and head are rounded to `outer`; a tied pair shares its bytes. `candidates`: what calibration chooses from
    for each layer, the fastest first."""

    name: str
    inner: BlockFormat
    outer: BlockFormat
    candidates: tuple[MatrixFormat, ...]
    prepared: Mapping[str, PreparedMatrix] = field(default_factory=dict)

    @property
    def activation(self) -> np.dtype[Any]:
        return self.inner.activation

    def calibrated(self, prepared: Mapping[str, PreparedMatrix]) -> IntegerScheme:
        """The scheme with matrices that are rounded already. Called "mixed" where they have several formats."""
        mixed = {matrix.form for matrix in prepared.values()} - {self.inner}
        return replace(self, prepared=prepared, name="mixed" if mixed else self.name)

    def linear(
        self, g: GraphBuilder, x: ir.Value, weight: LazyTensor, bias: Bias, name: str, *, outer: bool = False
    ) -> ir.Value:
        prepared, form = self.prepared.get(name), self.form_of(name, outer=outer)
        if prepared is None:
            stored = _store(g, form, weight, lambda: _rounded_pieces(form, weight))
        else:
            stored = _store(g, form, weight, lambda: iter([prepared.arrays()]))
        return form.multiply(g, x, stored, bias, name, *weight.shape)

    def form_of(self, name: str, *, outer: bool) -> MatrixFormat:
        """Of the layer at a node."""
        prepared = self.prepared.get(name)
        return prepared.form if prepared is not None else self.outer if outer else self.inner

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
    """The scheme of a precision on a target. CUDA graphs compute in float16, CPU graphs in float32."""
    activation = FLOAT32 if target == "cpu" else FLOAT16
    match precision:
        case "fp32":
            return FloatScheme("float32", FLOAT32, FLOAT32)
        case "fp16":
            return FloatScheme("float16", FLOAT16, activation)
        case "int8":
            blocks = BlockFormat(8, 32, True, activation)
            # Not blocks of 128: that kernel rounds a row otherwise when it has other neighbours.
            faster = (RowFormat(), BlockFormat(8, 64, True, activation)) if target == "cpu" else ()
            return IntegerScheme("blockwise-32-symmetric", blocks, blocks, (*faster, blocks))
        case "int4":
            blocks = BlockFormat(4, 32, False, activation)
            return IntegerScheme("blockwise-32-asymmetric", blocks, BlockFormat(8, 32, True, activation), (blocks,))
    raise AssertionError(f"no scheme for {precision}")


def _store(
    g: GraphBuilder, form: MatrixFormat, weight: LazyTensor, pieces: Callable[[], Iterator[Arrays]]
) -> tuple[ir.Value, ...]:
    """The initializers of a matrix; those of a tied one are there already."""
    regions = form.regions(weight.name, *weight.shape)
    if regions[0].name in g.stored:
        return tuple(g.stored[region.name].value for region in regions)
    return g.store(Produced(regions, pieces))


def _rounded_pieces(form: MatrixFormat, weight: LazyTensor) -> Iterator[Arrays]:
    """Integers that the checkpoint holds already stay as they are."""
    known = carries(weight, form.grid)
    for start, stop in [(0, weight.shape[0])] if form.whole else pieces(weight):
        codes = carried(weight, form.grid, start, stop) if known else None
        yield form.arrays(nearest(weight.rows(start, stop), form.grid) if codes is None else codes)


def _float_pieces(weight: LazyTensor, dtype: np.dtype[Any]) -> Iterator[Arrays]:
    for start, stop in pieces(weight):
        yield (np.ascontiguousarray(weight.rows(start, stop), dtype),)
