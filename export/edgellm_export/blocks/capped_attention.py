"""Attention to a whole source whose scores may be capped, of grouped queries. Of ONNX Runtime's operators only
GroupQueryAttention caps scores, and that one is causal: here they are made step by step, and all of them are in memory,
[B, N, S, T]."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build, Heads, node
from edgellm_export.blocks.near import least, near


def visible(b: Build, keys: ir.Value, reach: int | None = None) -> ir.Value:
    """A bias [B, 1, 1 or T, T], shared by all layers, that leaves tokens and not padding; with `reach`, those at most
    so many tokens away. keys: [B, T] int32, ones for tokens, then zeros."""
    g, root = b.graph, f"/visible_{'all' if reach is None else reach}"
    known = g.lookup(root)
    if known is None:
        seen = g.op("Cast", keys, name=f"{root}/Cast", to=int(ir.DataType.BOOL))
        zero, hidden = (g.constant(f"{root}/{x:g}", np.array(x, b.activation)) for x in (0.0, least(b.activation)))
        bias = g.op("Where", seen, zero, hidden, name=f"{root}/Where")
        bias = g.op("Unsqueeze", bias, g.ints(1, 2), name=f"{root}/Unsqueeze")
        if reach is not None:
            bias = g.op("Add", bias, near(b, keys, reach), name=f"{root}/Add")
        known = (bias,)
        g.remember(root, known)
    return known[0]


def split_heads(b: Build, x: ir.Value, count: int, head_dim: int, name: str) -> ir.Value:
    """[B, S, count * head_dim] to [B, count, S, head_dim]."""
    place = node(name)
    split = b.graph.op("Reshape", x, b.graph.ints(0, 0, count, head_dim), name=f"{place}/SplitHeads")
    return b.graph.op("Transpose", split, name=f"{place}/Transpose", perm=[0, 2, 1, 3])


def capped_attention(
    b: Build, query: ir.Value, key: ir.Value, value: ir.Value, heads: Heads, bias: ir.Value, name: str, *,
    kept: list[ir.Value] | None,
) -> ir.Value:  # fmt: skip
    """query [B, S, N * head_dim], as the result; key, value [B, kv_heads, T, head_dim]; bias [B, 1, 1 or S, T], added
    to the capped scores. `kept`: gets the weights [B, N, S, T]. The queries that share a key head are rows of one
    product: nothing is repeated."""
    g, place = b.graph, node(name)
    scale = heads.head_dim**-0.5 if heads.scale is None else heads.scale
    small = blocks.scale(b, query, scale / (heads.softcap or 1.0), f"{name}.scale")
    by_query, by_key = g.ints(0, heads.num_heads, -1, 0), g.ints(0, heads.num_kv_heads, -1, 0)
    split = split_heads(b, small, heads.num_heads, heads.head_dim, f"{name}.query")
    rows = g.op("Reshape", split, by_key, name=f"{place}/Group")
    turned = g.op("Transpose", key, name=f"{place}/key/Turn", perm=[0, 1, 3, 2])
    scores = g.op("MatMul", rows, turned, name=f"{place}/Scores")
    if heads.softcap:
        scores = blocks.scale(b, g.op("Tanh", scores, name=f"{place}/Tanh"), heads.softcap, f"{name}.cap")
    scores = g.op("Add", g.op("Reshape", scores, by_query, name=f"{place}/Ungroup"), bias, name=f"{place}/Add")
    weights = g.op("Softmax", scores, axis=-1, name=f"{place}/Softmax")
    if kept is not None:
        kept.append(weights)
    y = g.op("MatMul", g.op("Reshape", weights, by_key, name=f"{place}/weights/Group"), value, name=f"{place}/Values")
    y = g.op("Reshape", y, by_query, name=f"{place}/values/Ungroup")
    y = g.op("Transpose", y, name=f"{place}/Transpose", perm=[0, 2, 1, 3])
    return g.op("Reshape", y, g.ints(0, 0, heads.query_size), name=f"{place}/JoinHeads")
