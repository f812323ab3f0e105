"""Attention: queries, keys and values of the checkpoint's layers, and the operators that ONNX Runtime has for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.blocks.build import BatchState, Build, Heads, LayerCache, node
from edgellm_export.blocks.layers import linear
from edgellm_export.blocks.norms import per_head_rms_norm
from edgellm_export.blocks.rope import Rope, StaticRope, turned_by_attention
from edgellm_export.blocks.rotary import rotate, tables
from edgellm_export.checkpoint.tensors import RowConcat
from edgellm_export.onnx.builder import MICROSOFT

AFTER_SOFTMAX = 2  # what GroupQueryAttention is to put into its fourth output


def packed_qkv(b: Build, x: ir.Value, name: str, heads: Heads, columns: int, *, bias: bool) -> ir.Value:
    """q_proj, k_proj and v_proj as one matrix, their outputs side by side: [B, S, (Nq + 2 Nkv) H]."""
    parts = [(f"{name}.q_proj", heads.query_size), (f"{name}.k_proj", heads.kv_size), (f"{name}.v_proj", heads.kv_size)]
    matrices = tuple(b.tensors.take(f"{part}.weight", (rows, columns)) for part, rows in parts)
    vector = np.concatenate([b.vector(f"{part}.bias", rows) for part, rows in parts]) if bias else None
    return b.project(x, RowConcat(f"{name}.qkv_proj.weight", matrices), vector, f"{name}.qkv_proj")


def normed_qkv(
    b: Build, x: ir.Value, name: str, heads: Heads, columns: int, *, bias: bool, eps: float, shift: float = 0.0
) -> list[ir.Value]:
    """q, k and v apart, each head of q and k RMS-normed with weight + `shift`."""
    q, k, v = (
        linear(b, x, f"{name}.{side}_proj", size, columns, bias=bias)
        for side, size in (("q", heads.query_size), ("k", heads.kv_size), ("v", heads.kv_size))
    )
    normed = [
        per_head_rms_norm(
            b,
            y,
            count,
            heads.head_dim,
            b.vector(f"{name}.{side}_norm.weight", heads.head_dim) + shift,
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
    sinks: FloatArray | None = None,
) -> tuple[ir.Value, LayerCache]:
    """Causal grouped-query attention with the cache updated in place. qkv: one packed value [B, S, (Nq + 2 Nkv) H],
    or three. sinks: [Nq], the score of one more key of each head, without a value.
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
    if sinks is not None:
        scales = [None, None, b.graph.array(f"{name}.sinks", sinks.astype(b.activation)), *scales[3:]]
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
