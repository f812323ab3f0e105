"""Sums of the tokens of each full block of a text; those behind the last full block belong to that one, too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.blocks.build import Build, node
from edgellm_export.blocks.near import places


@dataclass(frozen=True)
class Sums:
    """Of a batch [B, T] with G full blocks in all T, which texts with padding need not have. block_of: [B, T] int64, of
    each token; -1 for padding, and in texts without a full block. numbers: 0 .. G - 1. seen: [B, G] int32, ones for the
    blocks that a text has. tokens: T, [1]."""

    block_of: ir.Value
    numbers: ir.Value
    seen: ir.Value
    tokens: ir.Value

    def of(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        """[B, T, size] to [B, G, size]."""
        g, root = b.graph, "/sums/member"
        known = g.lookup(root)
        if known is None:
            own = g.op("Unsqueeze", self.block_of, g.ints(1), name=f"{root}/Own")
            each = g.op("Unsqueeze", self.numbers, g.ints(1), name=f"{root}/Each")
            member = g.op("Equal", each, own, name=f"{root}/Equal")  # [B, G, T]
            known = (g.op("Cast", member, name=f"{root}/Cast", to=int(b.activation_type)),)
            g.remember(root, known)
        return g.op("MatMul", known[0], x, name=f"{node(name)}/MatMul")

    def apart(self, b: Build, x: ir.Value, name: str) -> tuple[ir.Value, ir.Value]:
        """[B, T + G, size] as [B, T, size] and [B, G, size]."""
        g, place = b.graph, node(name)
        end = g.ints(np.iinfo(np.int64).max)
        tokens = g.op("Slice", x, g.ints(0), self.tokens, g.ints(1), name=f"{place}/Tokens")
        return tokens, g.op("Slice", x, self.tokens, end, g.ints(1), name=f"{place}/Sums")

    def bias(self, b: Build, table: FloatArray, place: str) -> ir.Value:
        """[B, N, T, G], shared by all layers: by sum's minus query's block. table: [N, distances], the middle one of
        which is 0; beyond the ends, the end's."""
        g, far = b.graph, table.shape[1] // 2
        known = g.lookup(place)
        if known is None:
            own = g.op("Unsqueeze", self.block_of, g.ints(2), name=f"{place}/Own")
            away = g.op("Sub", self.numbers, own, name=f"{place}/Sub")  # [B, T, G]
            index = g.op("Add", away, g.ints(far), name=f"{place}/Add")
            index = g.op("Max", index, g.ints(0), name=f"{place}/Max")
            index = g.op("Min", index, g.ints(2 * far), name=f"{place}/Min")
            rows = g.array(f"{place[1:]}.table", np.ascontiguousarray(table, b.activation))
            bias = g.op("Gather", rows, index, name=f"{place}/Gather", axis=1)  # [N, B, T, G]
            known = (g.op("Transpose", bias, perm=[1, 0, 2, 3], name=f"{place}/Transpose"),)
            g.remember(place, known)
        return known[0]


def block_sums(b: Build, mask: ir.Value, size: int) -> Sums:
    """Shared by all layers. mask: [B, T] int32, ones for tokens, then zeros. size: tokens of a block."""
    g, root = b.graph, f"/sums_{size}"
    known = g.lookup(root)
    if known is None:
        wide = g.op("Cast", mask, name=f"{root}/Cast", to=int(ir.DataType.INT64))
        lengths = g.op("ReduceSum", wide, g.ints(1), name=f"{root}/ReduceSum")  # [B, 1]
        full = g.op("Div", lengths, g.ints(size), name=f"{root}/Full")
        last = g.op("Sub", full, g.ints(1), name=f"{root}/Last")
        block = g.op("Div", places(b, mask), g.ints(size), name=f"{root}/Block")
        block = g.op("Min", block, last, name=f"{root}/Min")
        here = g.op("Cast", mask, name=f"{root}/Here", to=int(ir.DataType.BOOL))
        block_of = g.op("Where", here, block, g.ints(-1), name=f"{root}/Where")
        tokens = g.op("Shape", mask, start=1, end=2, name=f"{root}/Shape")
        count = g.op(
            "Squeeze", g.op("Div", tokens, g.ints(size), name=f"{root}/Count"), g.ints(0), name=f"{root}/Squeeze"
        )
        numbers = g.op("Range", g.scalar(0), count, g.scalar(1), name=f"{root}/Range")
        seen = g.op(
            "Cast", g.op("Less", numbers, full, name=f"{root}/Less"), name=f"{root}/Seen", to=int(ir.DataType.INT32)
        )
        known = (block_of, numbers, seen, tokens)
        g.remember(root, known)
    return Sums(*known)
