"""One vector of a text's states."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgellm.package.manifest import Pooling
from edgellm_export.blocks.build import Build

FLOAT = ir.DataType.FLOAT
LOWEST = -3.0e38  # below any hidden state


def pooled(b: Build, x: ir.Value, attention_mask: ir.Value, pooling: Pooling, place: str = "/pooling") -> ir.Value:
    """[B, S, hidden] to [B, hidden], padding left out. attention_mask: [B, S]."""
    g = b.graph
    if pooling == "cls":
        return g.op("Gather", x, g.scalar(0), axis=1, name=f"{place}/Gather")
    weights = g.op("Cast", attention_mask, to=int(FLOAT), name=f"{place}/Cast")
    column = g.op("Unsqueeze", weights, g.ints(-1), name=f"{place}/Unsqueeze")
    if pooling == "max":
        padding = g.op("Equal", column, g.constant(f"{place}/zero", np.array(0, np.float32)), name=f"{place}/Equal")
        lowest = g.constant(f"{place}/lowest", np.array(LOWEST, np.float32))
        shown = g.op("Where", padding, lowest, x, name=f"{place}/Where")
        return g.op("ReduceMax", shown, g.ints(1), keepdims=0, name=f"{place}/ReduceMax")
    total = g.op(
        "ReduceSum", g.op("Mul", x, column, name=f"{place}/Mul"), g.ints(1), keepdims=0, name=f"{place}/ReduceSum"
    )
    return g.op(
        "Div", total, g.op("ReduceSum", column, g.ints(1), keepdims=0, name=f"{place}/Count"), name=f"{place}/Div"
    )
