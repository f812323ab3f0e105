"""BART, and what its descendants change: learned positions, LayerNorm behind each block, biases everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.architectures.names import Names, differ, head_differs
from edgellm_export.blocks import attention, norms
from edgellm_export.blocks import cross_attention as cross
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build, DecoderShape, Heads, LayerCache, Stream, node
from edgellm_export.blocks.cross_attention import CrossState, SourceState, TargetState, sinusoids
from edgellm_export.checkpoint.config import MAX_POSITIONS, ConfigReader
from edgellm_export.checkpoint.tensors import LazyTensor

EPSILON = 1e-5
SIDES = ("encoder", "decoder")
HEAD_BIAS = "final_logits_bias"
EMBEDDING, EMBEDDINGS = "model.shared", tuple(f"model.{side}.embed_tokens.weight" for side in SIDES)
NEVER_READ = "model.*.embed_positions.weights"  # M2M100's sinusoids, in older checkpoints
ONE_EMBEDDING = Names(embedding=EMBEDDING, head_bias=HEAD_BIAS, aliases=EMBEDDINGS, unused=(*EMBEDDINGS, NEVER_READ))
TWO_EMBEDDINGS = Names(
    embedding="model.encoder.embed_tokens", head_bias=HEAD_BIAS, others=EMBEDDINGS, unused=(f"{EMBEDDING}.weight",)
)


@dataclass(frozen=True)
class Side:
    """One of encoder and decoder."""

    name: str
    layers: int
    heads: Heads
    intermediate_size: int


@dataclass(frozen=True)
class Positions:
    """Of a table with a row per position, of whose rows the token that comes first has number `first`. `made`: the
    table of (positions, size), where it is one of sinusoids that a checkpoint need not hold."""

    first: int = 0
    made: Callable[[int, int], FloatArray] | None = None


LEARNED, SINUSOIDS = Positions(first=2), Positions(made=sinusoids)


@dataclass(frozen=True)
class BartConfig:
    """`pre_norm`: norms stand before each block, and one more at the end. `embedding_norm`: one behind the embedding;
    on the sides `norm_before_positions`, which do not scale it, positions are added behind that norm.
    `own_embeddings`: the sides that have one each; the others share one."""

    shape: DecoderShape
    encoder: Side
    decoder: Side
    hidden_act: str
    embedding_scale: float
    pre_norm: bool
    embedding_norm: bool
    positions: Positions
    norm_before_positions: tuple[str, ...] = ()
    own_embeddings: tuple[str, ...] = ()


def parse(config: ConfigReader) -> Bart:
    return parse_bart(config, pre_norm=False, embedding_norm=True, positions=LEARNED)


def parse_bart(
    config: ConfigReader, *, pre_norm: bool, embedding_norm: bool, positions: Positions,
    length: str = "max_position_embeddings",
) -> Bart:  # fmt: skip
    """`length`: the key of the longest target."""
    config.must_be("is_encoder_decoder", True)
    config.must_be("is_causal", True, null=False)
    config.no_windows()
    hidden = config.integer("d_model")
    encoder, decoder = read_side(config, "encoder", hidden), read_side(config, "decoder", hidden)
    vocab_size = config.integer("vocab_size")
    shape = DecoderShape(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_layers=decoder.layers,
        num_kv_heads=decoder.heads.num_heads,
        head_dim=decoder.heads.head_dim,
        context_length=config.integer(length, maximum=MAX_POSITIONS),
        tied_embedding=config.flag("tie_word_embeddings"),
    )
    scale = hidden**0.5 if config.flag("scale_embedding") else 1.0
    act = config.choice("activation_function", list(blocks.ACTIVATIONS))
    return Bart(BartConfig(shape, encoder, decoder, act, scale, pre_norm, embedding_norm, positions))


def read_side(config: ConfigReader, name: str, hidden: int) -> Side:
    count = config.integer(f"{name}_attention_heads")
    head_dim = max(1, hidden // count)
    config.require(
        hidden % count == 0 and head_dim % 8 == 0,
        f"d_model / {name}_attention_heads is {hidden / count:g}; ONNX Runtime's attention takes multiples of 8",
    )
    heads = Heads(count, count, head_dim)
    return Side(name, config.layers(f"{name}_layers"), heads, config.integer(f"{name}_ffn_dim"))


@dataclass(frozen=True)
class Bart:
    config: BartConfig

    @property
    def shape(self) -> DecoderShape:
        return self.config.shape

    @property
    def tied(self) -> bool:
        return self.shape.tied_embedding

    def fitted(self, tensors: Mapping[str, LazyTensor]) -> Self:
        """Where a side turns out to have an embedding of its own, the head is taken to have one, too."""
        own = tuple(
            side for side, name in zip(SIDES, EMBEDDINGS, strict=True) if differ(tensors, f"{EMBEDDING}.weight", name)
        )
        if not own and not (self.tied and head_differs(tensors, self.names)):
            return self
        shape = replace(self.shape, tied_embedding=False)
        return replace(self, config=replace(self.config, shape=shape, own_embeddings=own or self.config.own_embeddings))

    @property
    def source_layers(self) -> int:
        return self.config.encoder.layers

    @property
    def source_length(self) -> int | None:
        return self.shape.context_length

    @property
    def source_size(self) -> int:
        return self.shape.hidden_size

    @property
    def names(self) -> Names:
        own = self.config.own_embeddings
        others = tuple(f"{self._embedding_name(side)}.weight" for side in own)
        return TWO_EMBEDDINGS if own == SIDES else replace(ONE_EMBEDDING, others=others)

    @property
    def defaults(self) -> Mapping[str, FloatArray]:
        found = {HEAD_BIAS: np.zeros(self.shape.vocab_size, np.float32)}
        positions = self.config.positions
        if positions.made is not None:
            table = positions.made(positions.first + self.shape.context_length, self.shape.hidden_size)
            found.update({f"model.{side}.embed_positions.weight": table for side in SIDES})
        return found

    def source_state(self, b: Build, source: SourceState) -> SourceState:
        return source

    def target_state(self, b: Build, target: TargetState) -> TargetState:
        return target

    def embed_source(self, b: Build, input_ids: ir.Value, source: SourceState) -> Stream:
        assert source.positions is not None
        return self._embed(b, self.config.encoder, input_ids, source.positions)

    def embed(self, b: Build, input_ids: ir.Value, target: TargetState) -> Stream:
        return self._embed(b, self.config.decoder, input_ids, target.positions)

    def source_layer(self, b: Build, index: int, stream: Stream, source: SourceState) -> Stream:
        name, side = f"model.encoder.layers.{index}", self.config.encoder
        x, stream = self._before(b, stream, f"{name}.self_attn_layer_norm")
        y = self._source_attention(b, index, x, source, f"{name}.self_attn")
        stream = self._behind(b, stream, y, f"{name}.self_attn_layer_norm")
        return self._feed_forward(b, stream, name, side)

    def _source_attention(self, b: Build, index: int, x: ir.Value, source: SourceState, name: str) -> ir.Value:
        heads, hidden = self.config.encoder.heads, self.shape.hidden_size
        qkv = [blocks.linear(b, x, f"{name}.{side}_proj", heads.query_size, hidden, bias=True) for side in "qkv"]
        y = cross.attention_to_source(b, qkv, heads, source, name)
        return blocks.linear(b, y, f"{name}.out_proj", hidden, heads.query_size, bias=True)

    def source_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self._last_norm(b, stream, "model.encoder")

    def cross(self, b: Build, index: int, hidden: ir.Value) -> CrossState:
        heads, name = self.config.decoder.heads, f"model.decoder.layers.{index}.encoder_attn"
        names = [f"{name}.k_proj", f"{name}.v_proj"]
        matrices = [b.tensors.take(f"{n}.weight", (heads.kv_size, self.shape.hidden_size)) for n in names]
        biases = [b.vector(f"{n}.bias", heads.kv_size) for n in names]
        return cross.cross_keys_values(b, hidden, matrices, biases, heads, names)

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, source: CrossState, target: TargetState
    ) -> tuple[Stream, LayerCache]:
        name, side, hidden = f"model.decoder.layers.{index}", self.config.decoder, self.shape.hidden_size
        size = side.heads.query_size
        x, stream = self._before(b, stream, f"{name}.self_attn_layer_norm")
        qkv = attention.packed_qkv(b, x, f"{name}.self_attn", side.heads, hidden, bias=True)
        y, present = cross.self_attention(b, qkv, side.heads, cache, target, f"{name}.self_attn")
        y = blocks.linear(b, y, f"{name}.self_attn.out_proj", hidden, size, bias=True)
        stream = self._behind(b, stream, y, f"{name}.self_attn_layer_norm")
        x, stream = self._before(b, stream, f"{name}.encoder_attn_layer_norm")
        query = blocks.linear(b, x, f"{name}.encoder_attn.q_proj", size, hidden, bias=True)
        y = cross.cross_attention(b, query, source, side.heads, target, f"{name}.encoder_attn")
        y = blocks.linear(b, y, f"{name}.encoder_attn.out_proj", hidden, size, bias=True)
        stream = self._behind(b, stream, y, f"{name}.encoder_attn_layer_norm")
        return self._feed_forward(b, stream, name, side), present

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self._last_norm(b, stream, "model.decoder")

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        vocab = self.shape.vocab_size
        name = self._embedding_name("decoder") if self.shape.tied_embedding else self.names.head
        weight = b.tensors.take(f"{name}.weight", (vocab, self.shape.hidden_size))
        shift = b.tensors.take(HEAD_BIAS, (vocab,))
        bias = shift.rows(0, shift.shape[0])
        return b.project(hidden, weight, bias if bias.any() else None, self.names.head, outer=True)

    def _embedding_name(self, side: str) -> str:
        return f"model.{side}.embed_tokens" if side in self.config.own_embeddings else EMBEDDING

    def _embed(self, b: Build, side: Side, input_ids: ir.Value, positions: ir.Value) -> Stream:
        name, shape = f"model.{side.name}", self.shape
        weight = b.tensors.take(f"{self._embedding_name(side.name)}.weight", (shape.vocab_size, shape.hidden_size))
        tokens = b.scheme.embedding(b.graph, input_ids, weight, node(f"{name}.embed_tokens"))
        norm_first = side.name in self.config.norm_before_positions
        if self.config.embedding_scale != 1 and not norm_first:
            tokens = blocks.scale(b, tokens, self.config.embedding_scale, f"{name}.embed_scale")
        place = b.graph.op(
            "Gather", self._position_table(b, side.name), positions, axis=0, name=f"{node(name)}/embed_positions/Gather"
        )
        if not self.config.embedding_norm:
            return Stream(tokens, place)
        if norm_first:
            return Stream(self._layer_norm(b, tokens, f"{name}.layernorm_embedding", feeds_stream=True), place)
        x = norms.add(b, Stream(tokens, place), f"{name}.embed_positions")
        return Stream(self._layer_norm(b, x, f"{name}.layernorm_embedding", feeds_stream=True))

    def _position_table(self, b: Build, side: str) -> ir.Value:
        name, first = f"model.{side}.embed_positions.weight", self.config.positions.first
        count = first + self._positions_of(side)
        table = b.tensors.take(name, (count, self.shape.hidden_size)).rows(first, count)
        return b.graph.array(name, np.ascontiguousarray(table, b.activation))

    def _positions_of(self, side: str) -> int:
        return self.shape.context_length

    def _feed_forward(self, b: Build, stream: Stream, name: str, side: Side) -> Stream:
        hidden, size, act = self.shape.hidden_size, side.intermediate_size, self.config.hidden_act
        x, stream = self._before(b, stream, f"{name}.final_layer_norm")
        made = f"{name}.fc1.made"
        weight, bias = b.tensors.take(f"{name}.fc1.weight", (size, hidden)), b.vector(f"{name}.fc1.bias", size)
        if act == "relu":  # relu(x / s) is relu(x) / s
            weight, bias = b.channels.divided_rows(made, weight), b.channels.divided(made, bias)
        y = blocks.activate(b, b.project(x, weight, bias, f"{name}.fc1"), act, f"{name}.activation")
        if act == "relu":
            y = b.channels.made(y, made)
        y = blocks.linear(b, y, f"{name}.fc2", hidden, size, bias=True)
        return self._behind(b, stream, y, f"{name}.final_layer_norm")

    def _before(self, b: Build, stream: Stream, name: str) -> tuple[ir.Value, Stream]:
        """What a block reads, and the stream that it adds to."""
        if not self.config.pre_norm:
            x = norms.add(b, stream, f"{name}.input")
            return x, Stream(x)
        residual = norms.add(b, stream, f"{name}.residual")
        return self._layer_norm(b, residual, name), Stream(residual)

    def _behind(self, b: Build, stream: Stream, added: ir.Value, name: str) -> Stream:
        """The stream with what a block adds."""
        stream = Stream(stream.residual, added)
        if self.config.pre_norm:
            return stream
        return Stream(self._layer_norm(b, norms.add(b, stream, f"{name}.residual"), name, feeds_stream=True))

    def _last_norm(self, b: Build, stream: Stream, side: str) -> ir.Value:
        x = norms.add(b, stream, f"{side}.residual")
        return self._layer_norm(b, x, f"{side}.layer_norm") if self.config.pre_norm else x

    def _layer_norm(self, b: Build, x: ir.Value, name: str, *, feeds_stream: bool = False) -> ir.Value:
        return norms.layer_norm(b, x, name, self.shape.hidden_size, EPSILON, only_linear=not feeds_stream)
