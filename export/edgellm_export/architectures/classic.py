"""Decoders as they were before Llama: a LayerNorm and attention, a LayerNorm and an MLP without a gate, in turn or side
by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgellm_export.architectures.decoder import NamedDecoder, read_shape
from edgellm_export.blocks import attention, norms
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.alibi import Alibi
from edgellm_export.blocks.attention import Packing
from edgellm_export.blocks.build import BatchState, Build, DecoderShape, Heads, LayerCache, Stream
from edgellm_export.blocks.rope import Rope, read_rope, rope_request, rotary_dim, turned_by_attention
from edgellm_export.checkpoint.config import MAX_HEAD_DIM, MAX_HEADS, MAX_POSITIONS, ConfigReader


@dataclass(frozen=True)
class Keys:
    """What config.json calls a family's sizes. `inner`: None where the MLP is four times as wide as the stream. `eps`,
    `act`: None where they are 1e-5 and gelu's approximation."""

    hidden: str = "hidden_size"
    layers: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    inner: str | None = "intermediate_size"
    positions: str = "max_position_embeddings"
    eps: str | None = "layer_norm_eps"
    act: str | None = "hidden_act"


GPT2_KEYS = Keys("n_embd", "n_layer", "n_head", "n_inner", "n_positions", "layer_norm_epsilon", "activation_function")


@dataclass(frozen=True)
class LayerNames:
    """A family's names for its tensors. `layer`: of a layer, {} being its number; the others are behind it. `qkv`:
    three matrices, or one. `norms`: before attention and before the MLP, or one before both. `positions`: the table of
    learned ones."""

    layer: str
    qkv: tuple[str, ...]
    out: str
    norms: tuple[str, ...]
    up: str
    down: str
    final_norm: str
    embedding_norm: str | None = None
    positions: str | None = None


@dataclass(frozen=True)
class ClassicConfig:
    """`parallel`: attention and MLP both read the layer's input, and what they give is added to it. `packing`: of the
    one matrix of queries, keys and values. `clip`: their largest magnitude. `windows`: see LlamaConfig; () for none.
    `skipped`: rows of the table of positions that no token has. `norm_parts`: tensors of a norm."""

    names: LayerNames
    shape: DecoderShape
    heads: Heads
    intermediate_size: int
    layer_norm_eps: float
    hidden_act: str
    rope: Rope | None = None
    alibi: Alibi | None = None
    packing: Packing | None = None
    clip: float | None = None
    windows: Sequence[int | None] = ()
    skipped: int = 0
    norm_parts: Sequence[str] = norms.BOTH
    parallel: bool = False
    qkv_bias: bool = True
    output_bias: bool = True
    mlp_bias: bool = True


def read_classic(
    config: ConfigReader, names: LayerNames, keys: Keys = Keys(), *, kv_heads: int | None = None
) -> ClassicConfig:
    """What all families read of config.json. `kv_heads`: None for as many as there are of queries."""
    config.must_be("is_causal", True, null=False)
    config.no_windows()
    hidden, count = config.integer(keys.hidden), config.integer(keys.heads, maximum=MAX_HEADS)
    config.require(hidden % count == 0, f"{keys.hidden} {hidden} is not a multiple of {keys.heads} {count}")
    config.require(
        hidden // count <= MAX_HEAD_DIM, f"{keys.hidden} is {hidden} for {count} heads, too large for a head"
    )
    head_dim = min(max(1, hidden // count), MAX_HEAD_DIM)
    config.require(head_dim % 8 == 0, f"the head size is {head_dim}; ONNX Runtime's attention takes multiples of 8")
    config.must_be("head_dim", head_dim)
    heads = Heads(count, kv_heads or count, head_dim)
    config.require(count % heads.num_kv_heads == 0, f"{count} heads cannot share {kv_heads} of keys and values")
    context = config.integer(keys.positions, maximum=MAX_POSITIONS)
    return ClassicConfig(
        names=names,
        shape=read_shape(config, hidden, config.layers(keys.layers), heads, context=context),
        heads=heads,
        intermediate_size=config.integer(keys.inner, 4 * hidden) if keys.inner else 4 * hidden,
        layer_norm_eps=config.number(keys.eps) if keys.eps else 1e-5,
        hidden_act=config.choice(keys.act, list(blocks.ACTIVATIONS)) if keys.act else "gelu_new",
    )


def read_rotated(config: ConfigReader, classic: ClassicConfig, *, theta: float, share: float | None) -> ClassicConfig:
    """The same with the rope that config.json asks for. `share`: see rope_request."""
    head_dim, positions = classic.heads.head_dim, classic.shape.context_length
    request = rope_request(config, head_dim=head_dim, positions=positions, theta=theta, share=share)
    rotated = request.rotary_dim
    config.require(rotated % 2 == 0 and rotated > 0, f"{rotated} of head_dim are rotated, expected pairs")
    rope = read_rope(config, replace(request, rotary_dim=max(rotated, 2)))
    return with_rope(
        config, replace(classic, shape=replace(classic.shape, context_length=request.context_length)), rope
    )


def with_n_embed(config: ConfigReader, keys: Keys) -> Keys:
    """BLOOM's and Falcon's n_embed wins over hidden_size."""
    return keys if config.data.get("n_embed") is None else replace(keys, hidden="n_embed")


def with_positions(classic: ClassicConfig) -> ClassicConfig:
    """The same with learned positions."""
    return replace(classic, shape=replace(classic.shape, learned_positions=True))


def with_rope(config: ConfigReader, classic: ClassicConfig, rope: Rope) -> ClassicConfig:
    rotated, head_dim = rotary_dim(rope), classic.heads.head_dim
    config.require(rotated <= head_dim, f"{rotated} of {head_dim} channels of a head are rotated")
    config.require(
        not turned_by_attention(rope) or head_dim % 16 == 0,
        f"the head size is {head_dim}; ONNX Runtime's rotary attention takes multiples of 16",
    )
    return replace(classic, rope=rope, shape=replace(classic.shape, ropes=(rope,)))


class Classic(NamedDecoder[ClassicConfig]):
    known_to_genai = False

    def embed(self, b: Build, input_ids: ir.Value, batch: BatchState) -> Stream:
        names, stream = self.config.names, super().embed(b, input_ids, batch)
        if names.embedding_norm is not None:
            return Stream(self._norm(b, stream.residual, names.embedding_norm, only_linear=False))
        if names.positions is None:
            return stream
        return Stream(
            stream.residual, blocks.learned_positions(b, batch.positions, names.positions, self.config.skipped)
        )

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        c, name = self.config, self.config.names.layer.format(index)
        entry = norms.add(b, stream, f"{name}.residual")
        x = self._norm(b, entry, f"{name}.{c.names.norms[0]}")
        y, present = self._attention(b, x, index, cache, batch)
        attended = norms.add(b, Stream(entry, y), f"{name}.attention.residual")
        for norm in c.names.norms[1:]:
            x = self._norm(b, entry if c.parallel else attended, f"{name}.{norm}")
        up, down = f"{name}.{c.names.up}", f"{name}.{c.names.down}"
        x = blocks.ungated(b, x, up, down, c.intermediate_size, c.hidden_act, bias=c.mlp_bias)
        return Stream(attended, x), present

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self._norm(
            b, norms.add(b, stream, f"{self.config.names.final_norm}.residual"), self.config.names.final_norm
        )

    def _norm(self, b: Build, x: ir.Value, name: str, *, only_linear: bool = True) -> ir.Value:
        c, size = self.config, self.shape.hidden_size
        return norms.layer_norm(b, x, name, size, c.layer_norm_eps, only_linear=only_linear, has=c.norm_parts)

    def _attention(
        self, b: Build, x: ir.Value, index: int, cache: LayerCache, batch: BatchState
    ) -> tuple[ir.Value, LayerCache]:
        c, name, hidden = self.config, self.config.names.layer.format(index), self.shape.hidden_size
        heads = replace(c.heads, window=c.windows[index]) if c.windows else c.heads
        qkv, place = self._qkv(b, x, name), f"{name}.attention"
        if c.clip is not None:
            qkv = blocks.clip(b, qkv, c.clip, f"{place}.clip")
        bias = None if c.alibi is None else c.alibi.bias(b, x, batch)
        y, present = attention.grouped_query(
            b, [qkv], heads, cache, batch, c.rope, self.shape.context_length, place, bias=bias
        )
        return blocks.linear(b, y, f"{name}.{c.names.out}", hidden, heads.query_size, bias=c.output_bias), present

    def _qkv(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        c, hidden = self.config, self.shape.hidden_size
        names = [f"{name}.{part}" for part in c.names.qkv]
        if len(names) == 1 and c.packing is None:
            return blocks.linear(b, x, names[0], c.heads.query_size + 2 * c.heads.kv_size, hidden, bias=c.qkv_bias)
        if c.packing is not None:
            return attention.repacked_qkv(b, x, names[0], c.heads, hidden, c.packing, bias=c.qkv_bias)
        return attention.stacked_qkv(b, x, names, c.heads, hidden, bias=c.qkv_bias)
