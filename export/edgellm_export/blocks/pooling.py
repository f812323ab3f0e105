"""One vector of a text's states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgellm.package.manifest import Pooling
from edgellm_export.blocks.build import Build

FLOAT = ir.DataType.FLOAT
LOWEST = -3.0e38  # below any hidden state


def side_by_side(b: Build, x: ir.Value, attention_mask: ir.Value, poolings: Sequence[Pooling]) -> ir.Value:
    """[B, S, hidden] to [B, hidden] for each pooling, behind each other."""
    if len(poolings) == 1:
        return pooled(b, x, attention_mask, poolings[0])
    parts = [pooled(b, x, attention_mask, each, f"/pooling/{each}") for each in poolings]
    return b.graph.op("Concat", *parts, axis=-1, name="/pooling/Concat")


def pooled(b: Build, x: ir.Value, attention_mask: ir.Value, pooling: Pooling, place: str = "/pooling") -> ir.Value:
    """[B, S, hidden] to [B, hidden], padding left out. attention_mask: [B, S], ones, then zeros."""
    g = b.graph
    match pooling:
        case "cls":
            return g.op("Gather", x, g.scalar(0), axis=1, name=f"{place}/Gather")
        case "lasttoken":
            count = g.op("ReduceSum", attention_mask, g.ints(1), name=f"{place}/Count")  # [B, 1]
            last = g.op("Sub", count, g.ints(1), name=f"{place}/Last")
            return g.op("GatherND", x, last, batch_dims=1, name=f"{place}/GatherND")
        case "max":
            return _largest(b, x, _column(b, attention_mask, place), place)
    column = _column(b, attention_mask, place)
    if pooling == "weightedmean":
        column = g.op(
            "Mul", column, g.op("CumSum", column, g.scalar(1), name=f"{place}/CumSum"), name=f"{place}/Weights"
        )
    total = g.op(
        "ReduceSum", g.op("Mul", x, column, name=f"{place}/Mul"), g.ints(1), keepdims=0, name=f"{place}/ReduceSum"
    )
    share = g.op("ReduceSum", column, g.ints(1), keepdims=0, name=f"{place}/Count")
    if pooling == "mean_sqrt_len_tokens":
        share = g.op("Sqrt", share, name=f"{place}/Sqrt")
    return g.op("Div", total, share, name=f"{place}/Div")


def _column(b: Build, attention_mask: ir.Value, place: str) -> ir.Value:
    """[B, S, 1] float32: 1 for tokens."""
    weights = b.graph.op("Cast", attention_mask, to=int(FLOAT), name=f"{place}/Cast")
    return b.graph.op("Unsqueeze", weights, b.graph.ints(-1), name=f"{place}/Unsqueeze")


def _largest(b: Build, x: ir.Value, column: ir.Value, place: str) -> ir.Value:
    g = b.graph
    padding = g.op("Equal", column, g.constant(f"{place}/zero", np.array(0, np.float32)), name=f"{place}/Equal")
    lowest = g.constant(f"{place}/lowest", np.array(LOWEST, np.float32))
    shown = g.op("Where", padding, lowest, x, name=f"{place}/Where")
    return g.op("ReduceMax", shown, g.ints(1), keepdims=0, name=f"{place}/ReduceMax")
