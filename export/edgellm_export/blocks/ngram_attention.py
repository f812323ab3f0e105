"""Attention of ProphetNet's decoder (Qi et al., arXiv 2001.04063). Beside the main stream, a state for each token read,
is a predicting one, a state for the token that is to come: it sees the main stream up to the token before it, and
itself. What follows from distances is a number for each head and bucket of distances, which a layer makes of the state
that looks. The streams that predict later tokens are for training: nothing that is built here reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgellm.errors import UnsupportedModelError
from edgellm_export.blocks import cross_attention as cross
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build, Heads, LayerCache, node
from edgellm_export.blocks.capped_attention import split_heads
from edgellm_export.blocks.cross_attention import TargetState
from edgellm_export.blocks.near import least


@dataclass(frozen=True)
class Buckets:
    """Of distances from a query back to keys: one for each of the first half, then ever wider ones up to
    `max_distance`."""

    count: int
    max_distance: int

    def of(self, distances: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Of distances that are none below zero; in float32, as the original."""
        exact = self.count // 2
        shares = np.log(np.maximum(distances, 1).astype(np.float32) / np.float32(exact))
        shares = shares / np.float32(math.log(self.max_distance / exact)) * np.float32(self.count - exact)
        far = np.minimum(np.float32(exact) + shares, np.float32(self.count - 1)).astype(np.int64)
        return np.where(distances < exact, distances, far)


@dataclass(frozen=True)
class Streams:
    """The two streams' values: of the main one, and of the predicting one."""

    main: ir.Value
    predicting: ir.Value

    @classmethod
    def of(cls, b: Build, both: ir.Value, name: str, axis: int = 1) -> Streams:
        """`both`: one behind the other along `axis`, [R, 2 S, size] by default."""
        return cls(*b.graph.ops("Split", both, name=f"{node(name)}/Streams", outputs=2, axis=axis, num_outputs=2))

    def joined(self, b: Build, name: str) -> ir.Value:
        return b.graph.op("Concat", self.main, self.predicting, axis=1, name=f"{node(name)}/Streams")


def ngram_attention(
    b: Build, qkv: ir.Value, numbers: ir.Value, buckets: Buckets, heads: Heads, cache: LayerCache, target: TargetState,
    name: str,
) -> tuple[Streams, LayerCache]:  # fmt: skip
    """qkv: [R, 2 S, 3 N head_dim]. numbers: [R, 2 S, buckets * N], what each state adds to its scores by distance.
    Returns [R, S, N * head_dim] of each stream, and the cache with the main stream's keys and values."""
    if b.attentions is not None:
        raise UnsupportedModelError("edgellm has no attention weights of a predicting stream; leave out --attentions")
    g, place = b.graph, node(name)
    apart, numbers_apart = Streams.of(b, qkv, f"{name}.qkv"), _by_head(b, numbers, buckets, heads, name)
    distances = _distances(b, buckets, target)
    bias = _gathered(b, numbers_apart.main, distances.main, target, heads, f"{name}.main")
    main, present = cross.self_attention(b, apart.main, heads, cache, replace(target, bias=bias), name)
    never = g.constant("/decoder/never", np.array(least(b.activation), b.activation))
    padded = g.op("Pad", numbers_apart.predicting, g.ints(0, 0, 0, 0, 0, 0, 0, 1), never, name=f"{place}/Pad")
    bias = _gathered(b, padded, distances.predicting, target, heads, f"{name}.predicting")
    qkv_apart = g.ops("Split", apart.predicting, name=f"{place}/Split", outputs=3, axis=-1, num_outputs=3)
    return Streams(main, _predicting(b, qkv_apart, bias, heads, present, distances.total, name)), present


def _by_head(b: Build, numbers: ir.Value, buckets: Buckets, heads: Heads, name: str) -> Streams:
    """[R, 2 S, buckets * N] as [R, N, S, buckets] of each stream."""
    g, place = b.graph, f"{node(name)}/numbers"
    split = g.op("Reshape", numbers, g.ints(0, 0, buckets.count, heads.num_heads), name=f"{place}/Reshape")
    return Streams.of(b, g.op("Transpose", split, perm=[0, 3, 1, 2], name=f"{place}/Transpose"), f"{name}.numbers", 2)


@dataclass(frozen=True)
class _Distances:
    """Buckets. main: [R, 1, S, total]. predicting: [R, 1, S, total + 1], the last key being a state itself; another
    bucket, behind all others, is for keys that are not seen. total: [1] int64, tokens of a row."""

    main: ir.Value
    predicting: ir.Value
    total: ir.Value


def _distances(b: Build, buckets: Buckets, target: TargetState) -> _Distances:
    """Shared by all layers."""
    g, root = b.graph, "/decoder/distances"
    known = g.lookup(root)
    if known is None:
        far = buckets.max_distance
        bucket = buckets.of(np.arange(far + 2))[::-1]  # by key's minus query's position, from -far - 1 on
        end = g.op("Cast", target.total, name=f"{root}/Cast", to=int(ir.DataType.INT64))
        keys = g.op("Range", g.scalar(0), end, g.scalar(1), name=f"{root}/Range")
        queries = g.op("Unsqueeze", target.positions, g.ints(-1), name=f"{root}/Down")
        away = g.op("Sub", keys, queries, name=f"{root}/Sub")
        index = g.op("Add", g.op("Max", away, g.ints(-far), name=f"{root}/Max"), g.ints(far), name=f"{root}/Add")
        index = g.op("Min", index, g.ints(far + 1), name=f"{root}/Min")
        tables = (np.append(bucket[1:], 0), np.append(bucket[:-1], buckets.count))  # a key ahead has index far + 1
        main, predicting = (
            g.op("Gather", g.array(f"decoder.distances.{i}", table), index, axis=0, name=f"{root}/Gather.{i}")
            for i, table in enumerate(tables)
        )
        predicting = g.op("Pad", predicting, g.ints(0, 0, 0, 0, 0, 1), name=f"{root}/Itself")
        batch = (g.op("Unsqueeze", x, g.ints(1), name=f"{root}/Batch.{i}") for i, x in enumerate((main, predicting)))
        known = (*batch, g.op("Unsqueeze", end, g.ints(0), name=f"{root}/Total"))
        g.remember(root, known)
    return _Distances(*known)


def _gathered(b: Build, numbers: ir.Value, index: ir.Value, target: TargetState, heads: Heads, name: str) -> ir.Value:
    """[R, N, S, keys]: of `numbers` [R, N, S, buckets] those of `index` [R, 1, S, keys]."""
    g, stream = b.graph, name.rpartition(".")[2]
    root = f"/decoder/distances/{stream}"
    known = g.lookup(root)
    if known is None:
        rows = g.op("Concat", target.rows, g.ints(heads.num_heads, 1, 1), axis=0, name=f"{root}/Rows")
        known = (g.op("Expand", index, rows, name=f"{root}/Expand"),)
        g.remember(root, known)
    return g.op("GatherElements", numbers, known[0], axis=3, name=f"{node(name)}/GatherElements")


def _predicting(
    b: Build, qkv: Sequence[ir.Value], bias: ir.Value, heads: Heads, present: LayerCache, total: ir.Value, name: str
) -> ir.Value:
    """[R, S, N * head_dim], step by step: no operator has a key for each query. bias: [R, N, S, total + 1]. total: [1]
    int64."""
    g, place = b.graph, f"{node(name)}/predicting"
    assert present.key is not None
    assert present.value is not None
    keys, values = (
        g.op("Slice", side, g.ints(0), total, g.ints(2), name=f"{place}/{part}/Slice")
        for part, side in (("keys", present.key), ("values", present.value))
    )
    scale = heads.head_dim**-0.5 if heads.scale is None else heads.scale
    small = blocks.scale(b, qkv[0], scale, f"{name}.predicting.scale")
    query, own_key, own_value = (
        split_heads(b, x, heads.num_heads, heads.head_dim, f"{name}.predicting.{part}")
        for part, x in (("query", small), ("key", qkv[1]), ("value", qkv[2]))
    )
    turned = g.op("Transpose", keys, perm=[0, 1, 3, 2], name=f"{place}/keys/Turn")
    own = g.op("Mul", query, own_key, name=f"{place}/own/Mul")
    own = g.op("ReduceSum", own, g.ints(-1), keepdims=1, name=f"{place}/own/ReduceSum")
    scores = g.op("Concat", g.op("MatMul", query, turned, name=f"{place}/Scores"), own, axis=3, name=f"{place}/Concat")
    weights = g.op("Softmax", g.op("Add", scores, bias, name=f"{place}/Add"), axis=-1, name=f"{place}/Softmax")
    seen, itself = (
        g.op("Slice", weights, start, end, g.ints(3), name=f"{place}/{part}/Slice")
        for part, start, end in (("seen", g.ints(0), total), ("itself", total, g.ints(np.iinfo(np.int64).max)))
    )
    y = g.op("MatMul", seen, values, name=f"{place}/Values")
    y = g.op("Add", y, g.op("Mul", itself, own_value, name=f"{place}/own/Value"), name=f"{place}/Sum")
    y = g.op("Transpose", y, perm=[0, 2, 1, 3], name=f"{place}/Transpose")
    return g.op("Reshape", y, g.ints(0, 0, heads.query_size), name=f"{place}/JoinHeads")
