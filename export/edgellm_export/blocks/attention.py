"""Attention: queries, keys and values of the checkpoint's layers, and the operators that ONNX Runtime has for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgellm.errors import UnsupportedModelError
from edgellm.types import FloatArray
from edgellm_export.blocks.build import BatchState, Build, Heads, LayerCache, node
from edgellm_export.blocks.near import near
from edgellm_export.blocks.norms import per_head_rms_norm, rms_norm
from edgellm_export.blocks.rope import Rope, StaticRope, turned_by_attention
from edgellm_export.blocks.rotary import rotate, tables
from edgellm_export.checkpoint.tensors import ArrayTensor, LazyTensor, PairsApart, RowConcat, RunPart
from edgellm_export.onnx.builder import MICROSOFT

AFTER_SOFTMAX = 2  # what GroupQueryAttention is to put into its fourth output


def packed_qkv(b: Build, x: ir.Value, name: str, heads: Heads, columns: int, *, bias: bool) -> ir.Value:
    """q_proj, k_proj and v_proj as one matrix, their outputs side by side: [B, S, (Nq + 2 Nkv) H]."""
    return stacked_qkv(b, x, [f"{name}.{side}_proj" for side in "qkv"], heads, columns, bias=bias)


def stacked_qkv(b: Build, x: ir.Value, names: Sequence[str], heads: Heads, columns: int, *, bias: bool) -> ir.Value:
    """Three layers of these names as one."""
    parts = list(zip(names, _sides(heads), strict=True))
    matrices = tuple(_taken(b, f"{part}.weight", (side.rows, columns), side) for part, side in parts)
    vector = np.concatenate([_bias(b, part, side) for part, side in parts]) if bias else None
    place = f"{names[0].rpartition('.')[0]}.qkv_proj"
    return b.project(x, RowConcat(f"{place}.weight", matrices), vector, place)


@dataclass(frozen=True)
class Packing:
    """Where the queries, keys and values of a matrix that has them all stand, in each run of `every` rows: from row to
    row."""

    query: tuple[int, int]
    key: tuple[int, int]
    value: tuple[int, int]
    every: int


def by_kv_head(heads: Heads) -> Packing:
    """The queries of a key/value head, its keys, its values, and then those of the next one."""
    size = heads.head_dim
    queries = heads.num_heads // heads.num_kv_heads * size
    return Packing((0, queries), (queries, queries + size), (queries + size, queries + 2 * size), queries + 2 * size)


def repacked_qkv(
    b: Build, x: ir.Value, name: str, heads: Heads, columns: int, packing: Packing, *, bias: bool
) -> ir.Value:
    """The checkpoint's one matrix for queries, keys and values, as packed_qkv has them."""
    rows = heads.query_size + 2 * heads.kv_size

    def ordered(tensor: LazyTensor) -> LazyTensor:
        parts = zip((packing.query, packing.key, packing.value), _sides(heads), strict=True)
        return RowConcat(
            tensor.name,
            tuple(side.turned(RunPart(tensor.name, tensor, *part, packing.every)) for part, side in parts),
        )

    matrix = ordered(b.tensors.take(f"{name}.weight", (rows, columns)))
    vector = ordered(b.tensors.take(f"{name}.bias", (rows,))).rows(0, rows) if bias else None
    return b.project(x, matrix, vector, name)


def wholly_normed_qkv(
    b: Build, x: ir.Value, name: str, heads: Heads, columns: int, *, bias: bool, eps: float
) -> list[ir.Value]:
    """q, k and v apart, q and k RMS-normed over all heads together."""
    q, k, v = separate_qkv(b, x, name, heads, columns, bias=bias)
    normed = [
        rms_norm(b, y, b.vector(f"{name}.{side}_norm.weight", size), eps, f"{name}.{side}_norm")
        for side, y, size in (("q", q, heads.query_size), ("k", k, heads.kv_size))
    ]
    return [*normed, v]


def separate_qkv(b: Build, x: ir.Value, name: str, heads: Heads, columns: int, *, bias: bool) -> list[ir.Value]:
    """q_proj, k_proj and v_proj, a layer each: [B, S, Nq H], and twice [B, S, Nkv H]."""
    return [
        b.project(
            x, _taken(b, f"{part}.weight", (side.rows, columns), side), _bias(b, part, side) if bias else None, part
        )
        for part, side in zip((f"{name}.{which}_proj" for which in "qkv"), _sides(heads), strict=True)
    ]


@dataclass(frozen=True)
class _Side:
    """Queries, keys or values: `rows` of a matrix. `neighbours`: see Heads; 0 for values, which are not rotated."""

    rows: int
    head_dim: int
    neighbours: int

    def turned(self, tensor: LazyTensor) -> LazyTensor:
        """With a tensor's rows in the order in which they are rotated."""
        return PairsApart(tensor, self.head_dim, self.neighbours) if self.neighbours else tensor


def _sides(heads: Heads) -> tuple[_Side, _Side, _Side]:
    size, turned = heads.head_dim, heads.neighbours
    return _Side(heads.query_size, size, turned), _Side(heads.kv_size, size, turned), _Side(heads.kv_size, size, 0)


def _taken(b: Build, name: str, shape: tuple[int, ...], side: _Side) -> LazyTensor:
    return side.turned(b.tensors.take(name, shape))


def _bias(b: Build, part: str, side: _Side) -> FloatArray:
    return _taken(b, f"{part}.bias", (side.rows,), side).rows(0, side.rows)


def apart(vector: FloatArray, heads: Heads) -> FloatArray:
    """Numbers of the channels of one or more heads, in the order in which these are rotated."""
    return PairsApart(ArrayTensor("", vector), heads.head_dim, heads.neighbours).rows(0, len(vector))


def normed_qkv(
    b: Build, x: ir.Value, name: str, heads: Heads, columns: int, *, bias: bool, eps: float, shift: float = 0.0
) -> list[ir.Value]:
    """q, k and v apart, each head of q and k RMS-normed with weight + `shift`."""
    q, k, v = separate_qkv(b, x, name, heads, columns, bias=bias)
    normed = [
        per_head_rms_norm(
            b,
            y,
            count,
            heads.head_dim,
            apart(b.vector(f"{name}.{side}_norm.weight", heads.head_dim) + shift, heads),
            eps,
            f"{name}.{side}_norm",
        )
        for side, y, count in (("q", q, heads.num_heads), ("k", k, heads.num_kv_heads))
    ]
    return [*normed, v]


def grouped_query(
    b: Build,
    qkv: Sequence[ir.Value],
    heads: Heads,
    cache: LayerCache,
    batch: BatchState,
    rope: Rope | None,
    positions: int,
    name: str,
    *,
    bias: ir.Value | None = None,
    sinks: FloatArray | None = None,
) -> tuple[ir.Value, LayerCache]:
    """Causal grouped-query attention with the cache updated in place. qkv: one packed value [B, S, (Nq + 2 Nkv) H],
    or three. positions: rows of the rotary tables. bias: [1, Nq, S, T], added to the scores. sinks: [Nq], the score of
    one more key of each head, without a value. Returns [B, S, Nq * H] and the present cache."""
    if batch.both_ways is not None:
        if len(qkv) == 1 or bias is not None or sinks is not None:
            raise UnsupportedModelError("edgellm builds attention in both directions for Gemma 3 only")
        return _both_ways(b, qkv, heads, batch, batch.both_ways, rope, positions, name), cache
    if rope is not None and not turned_by_attention(rope):
        qkv, rope = rotate(b, qkv, heads, batch, rope, positions, name), None
    cos_sin = tables(b, rope, positions) if isinstance(rope, StaticRope) else (None, None)
    query, key, value = qkv if len(qkv) == 3 else (qkv[0], None, None)
    options: dict[str, Any] = {} if heads.scale is None else {"scale": heads.scale}
    if heads.window is not None:
        options["local_window_size"] = heads.window
    if heads.softcap:
        options["softcap"] = heads.softcap
    scales, quantization = _cache_quantization(b, cache, name)
    sink = None if sinks is None else b.graph.array(f"{name}.sinks", sinks.astype(b.activation))
    more = [None, bias, sink, *scales] if scales or bias is not None or sink is not None else []
    watched = {} if b.attentions is None else {"qk_output": AFTER_SOFTMAX}
    out, present_key, present_value, *weights = b.graph.ops(
        "GroupQueryAttention", query, key, value, cache.key, cache.value, batch.seqlens, batch.total, *cos_sin, *more,
        name=f"{node(name)}/GroupQueryAttention", outputs=4 if watched else 3, domain=MICROSOFT,
        num_heads=heads.num_heads, kv_num_heads=heads.num_kv_heads, do_rotary=int(cos_sin[0] is not None), **options,
        **quantization, **watched,
    )  # fmt: skip
    if b.attentions is not None:
        b.attentions.extend(weights)
    return out, LayerCache(present_key, present_value)


def _both_ways(
    b: Build, qkv: Sequence[ir.Value], heads: Heads, batch: BatchState, keys: ir.Value, rope: Rope | None,
    positions: int, name: str,
) -> ir.Value:  # fmt: skip
    """Attention of every token to every token of its row, or to those at most half a window away. Keys and values are
    repeated, as the operator has as many heads of each."""
    if heads.softcap:
        raise UnsupportedModelError("edgellm builds attention in both directions without soft caps only")
    if rope is not None:
        qkv = rotate(b, qkv, heads, batch, rope, positions, name)
    query, key, value = qkv
    key, value = (_repeated(b, x, heads, f"{node(name)}/{side}") for side, x in (("k", key), ("v", value)))
    options: dict[str, Any] = {} if heads.scale is None else {"scale": heads.scale}
    bias = () if heads.window is None else (near(b, keys, heads.window // 2),)
    inputs = (query, key, value, None, keys, *bias)
    return multi_head(b, *inputs, place=node(name), kept=b.attentions, num_heads=heads.num_heads, **options)


def _repeated(b: Build, x: ir.Value, heads: Heads, place: str) -> ir.Value:
    """[B, S, Nkv * H] to [B, S, Nq * H], each head as often as it has queries."""
    count = heads.num_heads // heads.num_kv_heads
    if count == 1:
        return x
    g = b.graph
    split = g.op("Reshape", x, g.ints(0, 0, heads.num_kv_heads, 1, heads.head_dim), name=f"{place}/Split")
    wide = g.op("Tile", split, g.ints(1, 1, 1, count, 1), name=f"{place}/Tile")
    return g.op("Reshape", wide, g.ints(0, 0, heads.query_size), name=f"{place}/Join")


def multi_head(b: Build, *inputs: ir.Value | None, place: str, kept: list[ir.Value] | None, **options: Any) -> ir.Value:
    """Attention of every query to every key that its mask allows. Its weights go to `kept`, if there is one."""
    y, *others = b.graph.ops(
        "MultiHeadAttention", *inputs, name=f"{place}/MultiHeadAttention", outputs=1 if kept is None else 4,
        domain=MICROSOFT, **options,
    )  # fmt: skip
    if kept is not None:
        *presents, products = others
        for present in presents:
            present.name = ""  # not wanted
        products.type = ir.TensorType(ir.DataType.FLOAT)  # which ONNX Runtime does not infer
        kept.append(b.graph.op("Softmax", products, axis=-1, name=f"{place}/Softmax"))
    return y


def _cache_quantization(b: Build, cache: LayerCache, name: str) -> tuple[list[ir.Value | None], dict[str, Any]]:
    """GroupQueryAttention's last inputs, and its attributes: for an int8 cache, its scales."""
    if cache.scales is None:
        return [], {}
    shape = (1, b.shape.num_kv_heads, 1, b.shape.head_dim)
    scales: list[ir.Value | None] = [
        b.graph.array(f"{name}.{side}_scale", array.reshape(shape))
        for side, array in (("k", cache.scales.key), ("v", cache.scales.value))
    ]
    per_channel = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
    return scales, per_channel
