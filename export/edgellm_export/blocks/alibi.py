"""Positions as a number per head and key that is added to the scores (ALiBi: Press et al., arXiv 2108.12409)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.blocks.build import BatchState, Build


@dataclass(frozen=True)
class Alibi:
    """A head's slope times the position of the key: of two keys a softmax sees the difference, so the query's own
    position does not matter. `coarse`: rounded to bfloat16 and multiplied by `scale`, as in Falcon."""

    slopes: tuple[float, ...]
    scale: float = 1.0
    coarse: bool = False

    def table(self, positions: int) -> FloatArray:
        """[heads, positions] float32."""
        slopes = np.array(self.slopes, np.float32)[:, None]
        keys = np.arange(positions, dtype=np.float32)
        if not self.coarse:
            return slopes * keys
        return _bfloat16(_bfloat16(slopes) * _bfloat16(keys)) * np.float32(self.scale)

    def bias(self, b: Build, x: ir.Value, batch: BatchState) -> ir.Value:
        """[1, heads, S, T] for the tokens x [B, S, ...], shared by all layers."""
        g, place = b.graph, "/model/alibi"
        known = g.lookup(place)
        if known is None:
            table = g.array("alibi.table", self.table(b.shape.context_length).astype(b.activation))
            total = g.op("Cast", batch.total, name=f"{place}/Cast", to=int(ir.DataType.INT64))
            keys = g.op("Unsqueeze", total, g.ints(0), name=f"{place}/Unsqueeze")
            row = g.op("Slice", table, g.ints(0), keys, g.ints(1), name=f"{place}/Slice")  # [heads, T]
            each = g.op("Unsqueeze", row, g.ints(0, 2), name=f"{place}/Row")  # [1, heads, 1, T]
            queries = g.op("Shape", x, name=f"{place}/Shape", start=1, end=2)
            shape = g.op("Concat", g.ints(1, 1), queries, g.ints(1), name=f"{place}/Concat", axis=0)
            known = (g.op("Expand", each, shape, name=f"{place}/Expand"),)
            g.remember(place, known)
        return known[0]


def geometric_slopes(heads: int) -> tuple[float, ...]:
    """Those of BLOOM and Falcon: of the next lower power of two, and then every other one of the next higher."""
    lower = 2 ** math.floor(math.log2(heads))
    base, finer = (np.float32(2 ** -(2 ** -(math.log2(n) - 3))) for n in (lower, 2 * lower))
    first = np.power(base, np.arange(1, lower + 1, dtype=np.float32))
    rest = np.power(finer, np.arange(1, 2 * (heads - lower) + 1, 2, dtype=np.float32))
    return tuple(np.concatenate([first, rest]).tolist())


def interleaved_slopes(heads: int, largest: int) -> tuple[float, ...]:
    """Those of MPT: of the next higher power of two, every other one first. largest: exponent of the halves."""
    higher = 2 ** math.ceil(math.log2(heads))
    exponents = np.arange(1, higher + 1, dtype=np.float32) * np.float32(largest / higher)
    slopes = np.float32(1) / np.power(np.float32(2), exponents)
    ordered = slopes if higher == heads else np.concatenate([slopes[1::2], slopes[::2]])[:heads]
    return tuple(ordered.tolist())


def _bfloat16(values: FloatArray) -> FloatArray:
    """Rounded to the nearest, ties to even, as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
