"""What encoder-decoders have and decoders have not: attention to a whole source, across, and relative positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.blocks.attention import AFTER_SOFTMAX, multi_head
from edgellm_export.blocks.build import Build, Heads, LayerCache, node
from edgellm_export.blocks.capped_attention import split_heads
from edgellm_export.blocks.local_attention import band
from edgellm_export.checkpoint.tensors import LazyTensor, RowConcat
from edgellm_export.onnx.builder import MICROSOFT

MASKED = -1e30  # added to the scores of padding


@dataclass(frozen=True)
class SourceState:
    """The sources as the encoder's attention sees them. mask: [B, T] int32, ones for tokens, then zeros; None: nothing
    is padding. bias: [1, N, T, T], only for relative positions; of a block's tokens where attention is in blocks.
    positions: [T] int64, of tokens."""

    mask: ir.Value | None = None
    positions: ir.Value | None = None
    bias: ir.Value | None = None


@dataclass(frozen=True)
class CrossState:
    """One layer's keys and values of the sources, [B, kv_heads, T, head_dim] each."""

    key: ir.Value
    value: ir.Value


@dataclass(frozen=True)
class TargetState:
    """The batch as the decoder sees it: the same number of rows for each source, source by source.

    seqlens: [R] int32, tokens of each row minus one. total: int32 scalar, tokens of the longest row. positions: [R, S]
    int64, of the tokens that are read; [1, S] where all rows are of one length. mask: [B, T] int32, of the sources.
    bias: [R or 1, N, S, total], only for relative positions. sources, rows: [1] int64 each, B and R.
    """

    seqlens: ir.Value
    total: ir.Value
    positions: ir.Value
    mask: ir.Value
    sources: ir.Value
    rows: ir.Value
    bias: ir.Value | None = None


def attention_to_source(b: Build, qkv: Sequence[ir.Value], heads: Heads, source: SourceState, name: str) -> ir.Value:
    """Every token attends to every token of its source. qkv: three values [B, T, N * head_dim], as the result."""
    return multi_head(b, *qkv, None, source.mask, source.bias, place=node(name), kept=b.attentions, **_options(heads))


def cross_keys_values(
    b: Build, hidden: ir.Value, matrices: Sequence[LazyTensor], biases: Sequence[FloatArray | None], heads: Heads,
    names: Sequence[str],
) -> CrossState:  # fmt: skip
    """Keys and values of the encoder's output [B, T, hidden_size], as the cross-attention of a layer reads them."""
    projected = [
        b.project(hidden, matrix, bias, name) for matrix, bias, name in zip(matrices, biases, names, strict=True)
    ]
    key, value = (
        split_heads(b, x, heads.num_kv_heads, heads.head_dim, name) for x, name in zip(projected, names, strict=True)
    )
    return CrossState(key, value)


def cross_attention(
    b: Build, query: ir.Value, cross: CrossState, heads: Heads, target: TargetState, name: str
) -> ir.Value:
    """Tokens attend to their row's source. query: [R, S, N * head_dim], as the result.

    All tokens of all rows of a source are queries of one sequence: nothing here depends on the order of the target, and
    keys and values are then there once per source, however many rows (beams) it has.
    """
    b.cross_queries.append(query)
    folded = fold(b, query, target, heads.query_size, name)
    inputs = (folded, cross.key, cross.value, None, target.mask)
    y = multi_head(b, *inputs, place=node(name), kept=b.cross_attentions, **_options(heads))
    return unfold(b, y, target, heads.query_size, name)


def fold(b: Build, x: ir.Value, target: TargetState, size: int, name: str) -> ir.Value:
    """[R, S, size] to [B, R / B * S, size]: all tokens of all rows of a source as one sequence."""
    return b.graph.op("Reshape", x, _shape(b, "fold", target.sources, size), name=f"{node(name)}/Fold")


def unfold(b: Build, x: ir.Value, target: TargetState, size: int, name: str) -> ir.Value:
    """Back again."""
    return b.graph.op("Reshape", x, _shape(b, "unfold", target.rows, size), name=f"{node(name)}/Unfold")


def _shape(b: Build, name: str, first: ir.Value, size: int) -> ir.Value:
    """[first, -1, size], shared by all layers."""
    known = b.graph.lookup(f"{name}_{size}")
    if known is None:
        known = (b.graph.op("Concat", first, b.graph.ints(-1, size), name=f"/decoder/{name}_{size}/Concat", axis=0),)
        b.graph.remember(f"{name}_{size}", known)
    return known[0]


def _options(heads: Heads) -> dict[str, Any]:
    scale = {} if heads.scale is None else {"scale": heads.scale}
    return {"num_heads": heads.num_heads, "mask_filter_value": MASKED, **scale}


def self_attention(
    b: Build, qkv: ir.Value, heads: Heads, cache: LayerCache, target: TargetState, name: str
) -> tuple[ir.Value, LayerCache]:
    """Causal attention of a row to itself, the cache updated in place. qkv: [R, S, 3 N head_dim]."""
    options: dict[str, Any] = {} if heads.scale is None else {"scale": heads.scale}
    bias = [] if target.bias is None else [None, None, None, target.bias]
    if b.attentions is not None:
        options["qk_output"] = AFTER_SOFTMAX
    y, key, value, *weights = b.graph.ops(
        "GroupQueryAttention", qkv, None, None, cache.key, cache.value, target.seqlens, target.total, *bias,
        name=f"{node(name)}/GroupQueryAttention", outputs=3 if b.attentions is None else 4, domain=MICROSOFT,
        num_heads=heads.num_heads, kv_num_heads=heads.num_kv_heads, **options,
    )  # fmt: skip
    if b.attentions is not None:
        b.attentions.extend(weights)
    return y, LayerCache(key, value)


def stacked(name: str, parts: Sequence[LazyTensor]) -> LazyTensor:
    """Matrices of layers that read the same value as one matrix."""
    return RowConcat(f"{name}.weight", tuple(parts))


@dataclass(frozen=True)
class RelativePositions:
    """Positions as a number per head added to the scores, by the distance from query to key, up to `max_distance`
    (Raffel et al., arXiv 1910.10683)."""

    buckets: int
    max_distance: int

    def of_source(
        self, b: Build, weight: LazyTensor, positions: ir.Value, place: str, dtype: np.dtype[Any]
    ) -> ir.Value:
        """[1, N, T, T] for a source, where keys lie on both sides."""
        distances = np.arange(-self.max_distance, self.max_distance + 1)
        bias = self._bias(b, weight, self.bucket_both(distances), positions, positions, place, dtype)
        return b.graph.op("Unsqueeze", bias, b.graph.ints(0), name=f"{place}/Batch")

    def of_block(self, b: Build, weight: LazyTensor, reach: int, length: int, place: str) -> ir.Value:
        """For a block of `length` tokens that see `reach` tokens to either side: see local_attention.band."""
        return band(b, self.table(weight, reach), length, place)

    def table(self, weight: LazyTensor, reach: int | None = None) -> FloatArray:
        """[N, 2 reach + 1], by key's minus query's position. reach: up to `max_distance` by default."""
        far = self.max_distance if reach is None else reach
        return weight.rows(0, self.buckets)[self.bucket_both(np.arange(-far, far + 1))].T

    def of_target(
        self, b: Build, weight: LazyTensor, total: ir.Value, queries: ir.Value, place: str, dtype: np.dtype[Any]
    ) -> ir.Value:
        """[R, N, S, total] for targets, where keys lie behind. queries: [R, S] positions."""
        end = b.graph.op("Cast", total, name=f"{place}/Cast", to=int(ir.DataType.INT64))
        keys = b.graph.op("Range", b.graph.scalar(0), end, b.graph.scalar(1), name=f"{place}/Range")
        buckets = self.bucket_behind(np.arange(self.max_distance + 1))
        bias = self._bias(b, weight, buckets[::-1], queries, keys, place, dtype)
        return b.graph.op("Transpose", bias, name=f"{place}/Transpose", perm=[1, 0, 2, 3])

    def _bias(
        self, b: Build, weight: LazyTensor, buckets: npt.NDArray[np.int64], queries: ir.Value, keys: ir.Value,
        place: str, dtype: np.dtype[Any],
    ) -> ir.Value:  # fmt: skip
        """[N, .., S, T] for positions of queries [.., S] and of keys [T]. buckets: by key's minus query's position,
        from -max_distance on. Beyond the ends, the end's."""
        g, heads = b.graph, weight.shape[1]
        table = np.ascontiguousarray(weight.rows(0, self.buckets)[buckets].T, dtype)  # [N, distances]
        down = g.op("Unsqueeze", queries, g.ints(-1), name=f"{place}/Unsqueeze")
        distance = g.op("Sub", keys, down, name=f"{place}/Sub")
        index = g.op("Add", distance, g.ints(self.max_distance), name=f"{place}/Add")
        inside = g.op("Max", index, g.ints(0), name=f"{place}/Max")
        inside = g.op("Min", inside, g.ints(len(buckets) - 1), name=f"{place}/Min")
        assert table.shape == (heads, len(buckets))
        return g.op("Gather", g.array(f"{place[1:]}.table", table), inside, name=f"{place}/Gather", axis=1)

    def bucket_both(self, distances: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Of distances from a query to keys on both sides, those behind it below zero."""
        half = self.buckets // 2
        return np.where(distances > 0, half, 0) + self._bucket(np.abs(distances), half)

    def bucket_behind(self, distances: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Of distances to keys behind the query, none below zero."""
        return self._bucket(distances, self.buckets)

    def _bucket(self, distances: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
        """The first half of the buckets for a distance each, the others for ever longer ranges; in float32, as the
        original."""
        exact = count // 2
        shares = np.log(np.maximum(distances, 1).astype(np.float32) / np.float32(exact))
        shares = shares / np.float32(math.log(self.max_distance / exact)) * np.float32(count - exact)
        far = np.minimum(exact + shares.astype(np.int64), count - 1)
        return np.where(distances < exact, distances, far)


def sinusoids(positions: int, size: int) -> FloatArray:
    """[positions, size]: sines in the first half, cosines in the second (Vaswani et al., arXiv 1706.03762)."""
    channels = np.arange(size)
    angles = np.arange(positions)[:, None] / np.power(10000, 2 * (channels // 2) / size)
    return np.concatenate([np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])], axis=1).astype(np.float32)
