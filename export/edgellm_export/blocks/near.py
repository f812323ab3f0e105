"""Places of tokens, and which of them are near each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgellm_export.blocks.build import Build


def least(dtype: np.dtype[Any]) -> float:
    """Added to the scores of keys that are not seen. float16 has no more, and rows of nothing else stay numbers."""
    return -1e30 if dtype == np.float32 else -3e4


def places(b: Build, keys: ir.Value) -> ir.Value:
    """0 .. S - 1: [S] int64, shared by all layers. keys: [B, S]."""
    g, root = b.graph, "/positions"
    known = g.lookup(root)
    if known is None:
        length = g.op("Shape", keys, start=1, end=2, name=f"{root}/Shape")
        end = g.op("Squeeze", length, g.ints(0), name=f"{root}/Squeeze")
        known = (g.op("Range", g.scalar(0), end, g.scalar(1), name=f"{root}/Range"),)
        g.remember(root, known)
    return known[0]


def near(b: Build, keys: ir.Value, reach: int) -> ir.Value:
    """A bias [1, 1, S, S] that leaves keys at most `reach` tokens away, shared by all layers with the same reach."""
    g, root = b.graph, f"/near_{reach}"
    known = g.lookup(root)
    if known is None:
        row = places(b, keys)
        column = g.op("Unsqueeze", row, g.ints(1), name=f"{root}/Unsqueeze")
        away = g.op("Abs", g.op("Sub", row, column, name=f"{root}/Sub"), name=f"{root}/Abs")
        far = g.op("Greater", away, g.scalar(reach), name=f"{root}/Greater")
        zero, hidden = (g.constant(f"{root}/{x}", np.array(x, b.activation)) for x in (0, least(b.activation)))
        bias = g.op("Where", far, hidden, zero, name=f"{root}/Where")
        known = (g.op("Unsqueeze", bias, g.ints(0, 1), name=f"{root}/Batch"),)
        g.remember(root, known)
    return known[0]
