"""Attention: queries, keys and values of the checkpoint's layers, and the operators that ONNX Runtime has for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.blocks.build import BatchState, Build, Heads, LayerCache, node
from edgellm_export.blocks.norms import per_head_rms_norm
from edgellm_export.blocks.rope import Rope, StaticRope, turned_by_attention
from edgellm_export.blocks.rotary import rotate, tables
from edgellm_export.checkpoint.tensors import ArrayTensor, LazyTensor, PairsApart, RowConcat
from edgellm_export.onnx.builder import MICROSOFT

AFTER_SOFTMAX = 2  # what GroupQueryAttention is to put into its fourth output


def packed_qkv(b: Build, x: ir.Value, name: str, heads: Heads, columns: int, *, bias: bool) -> ir.Value:
    """q_proj, k_proj and v_proj as one matrix, their outputs side by side: [B, S, (Nq + 2 Nkv) H]."""
    parts = [*_sides(name, heads)]
    matrices = tuple(_taken(b, f"{part}.weight", (rows, columns), heads) for part, rows in parts)
    vector = np.concatenate([_bias(b, part, rows, heads) for part, rows in parts]) if bias else None
    return b.project(x, RowConcat(f"{name}.qkv_proj.weight", matrices), vector, f"{name}.qkv_proj")


def separate_qkv(b: Build, x: ir.Value, name: str, heads: Heads, columns: int, *, bias: bool) -> list[ir.Value]:
    """q_proj, k_proj and v_proj, a layer each: [B, S, Nq H], and twice [B, S, Nkv H]."""
    return [
        b.project(
            x, _taken(b, f"{part}.weight", (rows, columns), heads), _bias(b, part, rows, heads) if bias else None, part
        )
        for part, rows in _sides(name, heads)
    ]


def _sides(name: str, heads: Heads) -> Sequence[tuple[str, int]]:
    return [(f"{name}.q_proj", heads.query_size), (f"{name}.k_proj", heads.kv_size), (f"{name}.v_proj", heads.kv_size)]


def _taken(b: Build, name: str, shape: tuple[int, ...], heads: Heads) -> LazyTensor:
    """A tensor of a layer in front of attention, its rows in the order in which they are rotated."""
    tensor = b.tensors.take(name, shape)
    turned = heads.neighbours and ".v_proj." not in name
    return PairsApart(tensor, heads.head_dim, heads.neighbours) if turned else tensor


def apart(vector: FloatArray, heads: Heads) -> FloatArray:
    """Numbers of the channels of one or more heads, in the order in which these are rotated."""
    return PairsApart(ArrayTensor("", vector), heads.head_dim, heads.neighbours).rows(0, len(vector))


def _bias(b: Build, part: str, rows: int, heads: Heads) -> FloatArray:
    return _taken(b, f"{part}.bias", (rows,), heads).rows(0, rows)


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
) -> tuple[ir.Value, LayerCache]:
    """Causal grouped-query attention with the cache updated in place. qkv: one packed value [B, S, (Nq + 2 Nkv) H],
    or three.
    positions: rows of the rotary tables. Returns [B, S, Nq * H] and the present cache."""
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
    watched = {} if b.attentions is None else {"qk_output": AFTER_SOFTMAX}
    out, present_key, present_value, *weights = b.graph.ops(
        "GroupQueryAttention", query, key, value, cache.key, cache.value, batch.seqlens, batch.total, *cos_sin, *scales,
        name=f"{node(name)}/GroupQueryAttention", outputs=4 if watched else 3, domain=MICROSOFT,
        num_heads=heads.num_heads, kv_num_heads=heads.num_kv_heads, do_rotary=int(cos_sin[0] is not None), **options,
        **quantization, **watched,
    )  # fmt: skip
    if b.attentions is not None:
        b.attentions.extend(weights)
    return out, LayerCache(present_key, present_value)


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
    """GroupQueryAttention's inputs behind the rotary tables, and its attributes: for an int8 cache, its scales."""
    if cache.scales is None:
        return [], {}
    shape = (1, b.shape.num_kv_heads, 1, b.shape.head_dim)
    scales = [
        b.graph.array(f"{name}.{side}_scale", array.reshape(shape))
        for side, array in (("k", cache.scales.key), ("v", cache.scales.value))
    ]
    per_channel = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
    return [None, None, None, *scales], per_channel
