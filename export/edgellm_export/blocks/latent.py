"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): the keys and values of all heads are products with one
vector of each token, its latent, and a few channels of keys that carry the position are those of every head.

A key's product with a query is the latent's product with the query, taken through the transpose of what makes the key;
and a head's values add up to what makes them, times what the latents add up to. So attention is that of all queries to
a single head, [rotated channels, latent], of which the latents are the values too. Only that head is cached, and once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.attention import grouped_query
from edgellm_export.blocks.build import BatchState, Build, Heads, LayerCache, node
from edgellm_export.blocks.norms import rms_norm
from edgellm_export.blocks.rope import Rope
from edgellm_export.blocks.rotary import rotate
from edgellm_export.checkpoint.tensors import LazyTensor, PairsApart, RowConcat, RowSlice, RunPart, Transposed


@dataclass(frozen=True)
class Latent:
    """Sizes, in channels: of the latents that keys and values are made of, and queries (None: of the input), and of a
    head's part that is not rotated, part that is, and values. `neighbours`: how many of the rotated ones the checkpoint
    has so that neighbours rotate together. `bias`: on the layers that read the input, and on the last."""

    num_heads: int
    kv_lora_rank: int
    q_lora_rank: int | None
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    scale: float
    neighbours: int
    bias: bool = False
    eps: float = field(default=1e-6, init=False)  # of the latents' norms, whatever config.json says of others

    @property
    def heads(self) -> Heads:
        """As attention has them."""
        return Heads(self.num_heads, 1, self.qk_rope_head_dim + self.kv_lora_rank, scale=self.scale)

    @property
    def value_size(self) -> int:
        return self.num_heads * self.v_head_dim


def latent_attention(
    b: Build, x: ir.Value, name: str, latent: Latent, cache: LayerCache, batch: BatchState, rope: Rope, positions: int
) -> tuple[ir.Value, LayerCache]:
    """x: [B, S, hidden]. positions: rows of the rotary tables. Returns [B, S, num_heads * v_head_dim] and the present
    cache."""
    g, place, rotated = b.graph, node(name), Heads(latent.num_heads, 1, latent.qk_rope_head_dim)
    still, turning = _queries(b, x, name, latent)
    compressed, key = _compressed(b, x, name, latent)
    turning, key, _ = rotate(b, [turning, key, compressed], rotated, batch, rope, positions, name)
    key = g.op("Concat", key, compressed, axis=-1, name=f"{place}/Key")
    rows = latent.num_heads * (latent.qk_nope_head_dim + latent.v_head_dim)
    kv_b = b.tensors.take(f"{name}.kv_b_proj.weight", (rows, latent.kv_lora_rank))
    query = _through_keys(b, still, turning, kv_b, name, latent)
    y, present = grouped_query(b, [query, key, key], latent.heads, cache, batch, None, positions, name)
    return _through_values(b, y, kv_b, name, latent), present


def _queries(b: Build, x: ir.Value, name: str, latent: Latent) -> list[ir.Value]:
    """What of all heads is not rotated, and what is to be: [B, S, num_heads * qk_nope_head_dim], and likewise."""
    columns, layer = b.shape.hidden_size, f"{name}.q_proj"
    if latent.q_lora_rank is not None:
        x = blocks.linear(b, x, f"{name}.q_a_proj", latent.q_lora_rank, columns, bias=latent.bias)
        weight = b.vector(f"{name}.q_a_layernorm.weight", latent.q_lora_rank)
        x = rms_norm(b, x, weight, latent.eps, f"{name}.q_a_layernorm")
        columns, layer = latent.q_lora_rank, f"{name}.q_b_proj"
    still, turned = latent.qk_nope_head_dim, latent.qk_rope_head_dim
    every = still + turned
    matrix = b.tensors.take(f"{layer}.weight", (latent.num_heads * every, columns))
    parts = RunPart(matrix.name, matrix, 0, still, every), RunPart(matrix.name, matrix, still, every, every)
    y = b.project(x, RowConcat(matrix.name, (parts[0], _apart(parts[1], latent))), None, layer)
    return _split(b, y, [latent.num_heads * still, latent.num_heads * turned], f"{node(layer)}/Split")


def _compressed(b: Build, x: ir.Value, name: str, latent: Latent) -> list[ir.Value]:
    """The latents, normed, and the channels of keys that are to be rotated: [B, S, kv_lora_rank] and [B, S,
    qk_rope_head_dim]."""
    layer, sizes = f"{name}.kv_a_proj_with_mqa", [latent.kv_lora_rank, latent.qk_rope_head_dim]
    rows = sum(sizes)

    def ordered(tensor: LazyTensor) -> LazyTensor:
        first, rest = (RowSlice(tensor.name, tensor, *ends) for ends in ((0, sizes[0]), (sizes[0], rows)))
        return RowConcat(tensor.name, (first, _apart(rest, latent)))

    matrix = ordered(b.tensors.take(f"{layer}.weight", (rows, b.shape.hidden_size)))
    bias: FloatArray | None = None
    if latent.bias:
        bias = ordered(b.tensors.take(f"{layer}.bias", (rows,))).rows(0, rows)
    made, key = _split(b, b.project(x, matrix, bias, layer), sizes, f"{node(layer)}/Split")
    weight = b.vector(f"{name}.kv_a_layernorm.weight", latent.kv_lora_rank)
    return [rms_norm(b, made, weight, latent.eps, f"{name}.kv_a_layernorm"), key]


def _apart(tensor: LazyTensor, latent: Latent) -> LazyTensor:
    return PairsApart(tensor, latent.qk_rope_head_dim, latent.neighbours) if latent.neighbours else tensor


def _through_keys(b: Build, still: ir.Value, turned: ir.Value, kv_b: LazyTensor, name: str, latent: Latent) -> ir.Value:
    """Queries for the cached head: [B, S, num_heads * (qk_rope_head_dim + kv_lora_rank)]."""
    count, size, every = latent.num_heads, latent.qk_nope_head_dim, latent.qk_nope_head_dim + latent.v_head_dim
    stills = _split(b, still, [size] * count, f"{node(name)}/SplitStill")
    turneds = _split(b, turned, [latent.qk_rope_head_dim] * count, f"{node(name)}/SplitTurned")
    parts: list[ir.Value] = []
    for head, (x, own) in enumerate(zip(stills, turneds, strict=True)):
        layer = f"{name}.k_b_proj.{head}"
        rows = RowSlice(kv_b.name, kv_b, head * every, head * every + size)
        parts += own, b.project(x, Transposed(f"{layer}.weight", rows), None, layer)
    return b.graph.op("Concat", *parts, axis=-1, name=f"{node(name)}/Query")


def _through_values(b: Build, y: ir.Value, kv_b: LazyTensor, name: str, latent: Latent) -> ir.Value:
    """What the latents add up to, as the values of each head: [B, S, num_heads * v_head_dim]."""
    start, every = latent.qk_nope_head_dim, latent.qk_nope_head_dim + latent.v_head_dim
    sizes = [latent.qk_rope_head_dim, latent.kv_lora_rank] * latent.num_heads
    parts: list[ir.Value] = []
    for head, x in enumerate(_split(b, y, sizes, f"{node(name)}/SplitLatents")[1::2]):
        layer = f"{name}.v_b_proj.{head}"
        rows = RowSlice(f"{layer}.weight", kv_b, head * every + start, (head + 1) * every)
        parts.append(b.project(x, rows, None, layer))
    return b.graph.op("Concat", *parts, axis=-1, name=f"{node(name)}/Values")


def _split(b: Build, x: ir.Value, sizes: Sequence[int], place: str) -> list[ir.Value]:
    return list(b.graph.ops("Split", x, b.graph.ints(*sizes), name=place, outputs=len(sizes), axis=-1))
