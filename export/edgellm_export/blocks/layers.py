"""Attention, MLP and norms as functions that add nodes; differences between families are arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.blocks.build import BatchState, Build, Heads, LayerCache, Stream, node
from edgellm_export.blocks.rope import DynamicRope, LongRope, Rope, StaticRope
from edgellm_export.blocks.rotary import rotate, tables
from edgellm_export.checkpoint.tensors import LazyTensor, RowConcat, RowSlice
from edgellm_export.onnx.builder import MICROSOFT


def linear(
    b: Build, x: ir.Value, name: str, rows: int, columns: int, *, bias: bool, into_softmax: bool = False
) -> ir.Value:
    """x @ W.T (+ bias) with the checkpoint's `name`.weight [rows, columns]."""
    weight = b.tensors.take(f"{name}.weight", (rows, columns))
    vector = b.vector(f"{name}.bias", rows) if bias else None
    return b.project(x, weight, vector, name, into_softmax=into_softmax)


def packed_qkv(b: Build, x: ir.Value, name: str, heads: Heads, columns: int, *, bias: bool) -> ir.Value:
    """q_proj, k_proj and v_proj as one matrix, their outputs side by side: [B, S, (Nq + 2 Nkv) H]."""
    parts = [(f"{name}.q_proj", heads.query_size), (f"{name}.k_proj", heads.kv_size), (f"{name}.v_proj", heads.kv_size)]
    matrices = tuple(b.tensors.take(f"{part}.weight", (rows, columns)) for part, rows in parts)
    vector = np.concatenate([b.vector(f"{part}.bias", rows) for part, rows in parts]) if bias else None
    return b.project(x, RowConcat(f"{name}.qkv_proj.weight", matrices), vector, f"{name}.qkv_proj", into_softmax=True)


def normed_qkv(
    b: Build, x: ir.Value, name: str, heads: Heads, columns: int, *, bias: bool, eps: float, shift: float = 0.0
) -> list[ir.Value]:
    """q, k and v apart, each head of q and k RMS-normed with weight + `shift`."""
    q, k, v = (
        linear(b, x, f"{name}.{side}_proj", size, columns, bias=bias, into_softmax=side != "v")
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


def embedding(b: Build, input_ids: ir.Value, name: str, rows: int, columns: int) -> ir.Value:
    """Rows of the checkpoint's `name`.weight [rows, columns], for each id."""
    return b.scheme.embedding(b.graph, input_ids, b.tensors.take(f"{name}.weight", (rows, columns)), node(name))


def head(b: Build, hidden: ir.Value, embedding_name: str, head_name: str) -> ir.Value:
    """Logits. A tied head reads the embedding's bytes."""
    name = embedding_name if b.shape.tied_embedding else head_name
    weight = b.tensors.take(f"{name}.weight", (b.shape.vocab_size, b.shape.hidden_size))
    return b.project(hidden, weight, None, head_name, outer=True)


def rms_norm(b: Build, x: ir.Value, weight: FloatArray, eps: float, name: str) -> ir.Value:
    """x / rms(x) * weight over the last axis (Zhang and Sennrich, arXiv 1910.07467)."""
    scale = b.graph.array(f"{name}.weight", b.channels.divided(name, weight).astype(b.activation))
    y = b.graph.op(
        "SimplifiedLayerNormalization", x, scale, name=f"{node(name)}/RMSNorm", axis=-1, epsilon=eps, stash_type=1
    )
    return b.channels.made(y, name)


def add_rms_norm(b: Build, stream: Stream, weight: FloatArray, eps: float, name: str) -> tuple[ir.Value, Stream]:
    """Normed sum of the stream, and the stream with its delta added.

    In one operator for CUDA. On the CPU that one takes nearly twice the time of the two for a prompt, and as much for a
    token.
    """
    if stream.delta is None:
        return rms_norm(b, stream.residual, weight, eps, name), stream
    if b.activation == np.float32:
        total = b.graph.op("Add", stream.residual, stream.delta, name=f"{node(name)}/Add")
        return rms_norm(b, total, weight, eps, name), Stream(total)
    scale = b.graph.array(f"{name}.weight", b.channels.divided(name, weight).astype(b.activation))
    normed, _, _, total = b.graph.ops(
        "SkipSimplifiedLayerNormalization", stream.residual, stream.delta, scale,
        name=f"{node(name)}/SkipRMSNorm", outputs=4, domain=MICROSOFT, epsilon=eps,
    )  # fmt: skip
    return b.channels.made(normed, name), Stream(total)


def add_rms_norm_of(b: Build, stream: Stream, name: str, eps: float) -> tuple[ir.Value, Stream]:
    """add_rms_norm with the checkpoint's `name`.weight."""
    return add_rms_norm(b, stream, b.vector(f"{name}.weight", b.shape.hidden_size), eps, name)


def layer_norm(b: Build, x: ir.Value, name: str, size: int, eps: float, *, only_linear: bool = True) -> ir.Value:
    """LayerNormalization with the checkpoint's `name`.weight and .bias. `only_linear`: nothing but linear layers reads
    it, so that its channels may be scaled.

    The core operator, not the Skip variant: that one takes the variance as E[x^2] - mean^2, which cancels on the large
    residuals of such models.
    """
    scale, shift = (
        b.graph.array(f"{name}.{part}", b.channels.divided(name, b.vector(f"{name}.{part}", size)).astype(b.activation))
        for part in ("weight", "bias")
    )
    y = b.graph.op("LayerNormalization", x, scale, shift, name=f"{node(name)}/LayerNorm", axis=-1, epsilon=eps)
    return b.channels.made(y, name) if only_linear else y


def add(b: Build, stream: Stream, name: str) -> ir.Value:
    """The stream as one value."""
    if stream.delta is None:
        return stream.residual
    return b.graph.op("Add", stream.residual, stream.delta, name=f"{node(name)}/Add")


def scale(b: Build, x: ir.Value, factor: float, name: str) -> ir.Value:
    return b.graph.op(
        "Mul", x, b.graph.constant(f"{name}.factor", np.array(factor, b.activation)), name=f"{node(name)}/Mul"
    )


def softcap(b: Build, x: ir.Value, cap: float, name: str) -> ir.Value:
    """cap * tanh(x / cap)."""
    small = scale(b, x, 1 / cap, f"{name}.inverse_cap")
    return scale(b, b.graph.op("Tanh", small, name=f"{node(name)}/Tanh"), cap, f"{name}.cap")


AFTER_SOFTMAX = 2  # what GroupQueryAttention is to put into its fourth output
ACTIVATIONS = {
    "silu": ("QuickGelu", MICROSOFT, {"alpha": 1.0}),
    "swish": ("QuickGelu", MICROSOFT, {"alpha": 1.0}),
    "gelu": ("Gelu", MICROSOFT, {}),
    "gelu_new": ("FastGelu", MICROSOFT, {}),
    "gelu_pytorch_tanh": ("FastGelu", MICROSOFT, {}),
    "gelu_fast": ("FastGelu", MICROSOFT, {}),
    "quick_gelu": ("QuickGelu", MICROSOFT, {"alpha": 1.702}),
    "relu": ("Relu", "", {}),
}


def activate(b: Build, x: ir.Value, kind: str, name: str) -> ir.Value:
    op_type, domain, attributes = ACTIVATIONS[kind]
    return b.graph.op(op_type, x, name=f"{node(name)}/{op_type}", domain=domain, **attributes)


def gated(b: Build, x: ir.Value, name: str, size: int, columns: int, kind: str, *, bias: bool, fused: bool) -> ir.Value:
    """activation(gate_proj(x)) * up_proj(x) (Shazeer, arXiv 2002.05202): [B, S, size].

    `fused`: the checkpoint has both on top of each other as gate_up_proj; as a layer each, no copy splits their output.
    """
    made = f"{name}.gated"
    if fused:
        whole = b.tensors.take(f"{name}.gate_up_proj.weight", (2 * size, columns))
        matrices: list[LazyTensor] = [
            RowSlice(f"{name}.{part}.weight", whole, i * size, (i + 1) * size)
            for i, part in enumerate(("gate_proj", "up_proj"))
        ]
    else:
        matrices = [b.tensors.take(f"{name}.{part}.weight", (size, columns)) for part in ("gate_proj", "up_proj")]
    gate_bias, up_bias = (b.vector(f"{name}.{part}.bias", size) if bias else None for part in ("gate_proj", "up_proj"))
    gate = b.project(x, matrices[0], gate_bias, f"{name}.gate_proj")
    up = b.project(
        x,
        b.channels.divided_rows(made, matrices[1]),
        None if up_bias is None else b.channels.divided(made, up_bias),
        f"{name}.up_proj",
    )
    y = b.graph.op("Mul", activate(b, gate, kind, f"{name}.act"), up, name=f"{node(name)}/Mul")
    return b.channels.made(y, made)


def per_head_rms_norm(
    b: Build, x: ir.Value, heads: int, head_dim: int, weight: FloatArray, eps: float, name: str
) -> ir.Value:
    """RMS norm of each head of x [B, S, heads * head_dim]."""
    place = node(name)
    split = b.graph.op("Reshape", x, b.graph.ints(0, 0, heads, head_dim), name=f"{place}/SplitHeads")
    normed = rms_norm(b, split, weight, eps, name)
    return b.graph.op("Reshape", normed, b.graph.ints(0, 0, heads * head_dim), name=f"{place}/JoinHeads")


def attention(
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
    if isinstance(rope, DynamicRope | LongRope):
        qkv = rotate(b, qkv, heads, batch, rope, name)
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


def multi_head_attention(
    b: Build, *inputs: ir.Value | None, place: str, kept: list[ir.Value] | None, **options: Any
) -> ir.Value:
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
