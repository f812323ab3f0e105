"""BART, and what its descendants change: learned positions, LayerNorm behind each block, biases everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

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
NEVER_READ = "model.*.embed_positions.weights"  # M2M100's sinusoids, in older checkpoints


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


@dataclass(frozen=True)
class Parts:
    """What a checkpoint calls them. `qkv`: of self-attention and of attention to the source."""

    root: str = "model"
    shared: str = "shared"
    tokens: str = "embed_tokens"
    positions: str = "embed_positions"
    embedding_norm: str = "layernorm_embedding"
    qkv: tuple[str, str, str] = ("q_proj", "k_proj", "v_proj")
    across: str = "encoder_attn"
    up: str = "fc1"
    down: str = "fc2"
    feed_forward_norm: str = "final_layer_norm"

    @property
    def embedding(self) -> str:
        """Of both sides."""
        return f"{self.root}.{self.shared}"

    def embedding_of(self, side: str) -> str:
        return f"{self.root}.{side}.{self.tokens}"

    def positions_of(self, side: str) -> str:
        return f"{self.root}.{side}.{self.positions}.weight"

    def below(self, name: str) -> list[str]:
        """The layers of the attention `name`."""
        return [f"{name}.{side}" for side in self.qkv]

    def names(self, own_embeddings: Sequence[str]) -> Names:
        sides = tuple(f"{self.embedding_of(side)}.weight" for side in SIDES)
        if own_embeddings == SIDES:
            first, unused = self.embedding_of("encoder"), (f"{self.embedding}.weight",)
            return Names(f"{self.root}.", first, head_bias=HEAD_BIAS, others=sides, unused=unused)
        others = tuple(f"{self.embedding_of(side)}.weight" for side in own_embeddings)
        return Names(
            f"{self.root}.", self.embedding, head_bias=HEAD_BIAS, others=others, aliases=sides,
            unused=(*sides, NEVER_READ),
        )  # fmt: skip


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
    parts: Parts = Parts()


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


def read_side(config: ConfigReader, name: str, hidden: int, *, size: str = "d_model", number: str = "") -> Side:
    """`size`: the key of `hidden`. `number`: what the keys of numbers begin with."""
    key = f"{number}{name}_attention_heads"
    count = config.integer(key)
    head_dim = max(1, hidden // count)
    config.require(
        hidden % count == 0 and head_dim % 8 == 0,
        f"{size} / {key} is {hidden / count:g}; ONNX Runtime's attention takes multiples of 8",
    )
    heads = Heads(count, count, head_dim)
    return Side(name, config.layers(f"{number}{name}_layers"), heads, config.integer(f"{name}_ffn_dim"))


@dataclass(frozen=True)
class Bart:
    counts_by_row: ClassVar = True
    config: BartConfig

    @property
    def shape(self) -> DecoderShape:
        return self.config.shape

    @property
    def parts(self) -> Parts:
        return self.config.parts

    @property
    def tied(self) -> bool:
        return self.shape.tied_embedding

    def fitted(self, tensors: Mapping[str, LazyTensor]) -> Self:
        """Where a side turns out to have an embedding of its own, the head is taken to have one, too."""
        shared = f"{self.parts.embedding}.weight"
        own = tuple(side for side in SIDES if differ(tensors, shared, f"{self.parts.embedding_of(side)}.weight"))
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
        return self.parts.names(self.config.own_embeddings)

    @property
    def defaults(self) -> Mapping[str, FloatArray]:
        found = {HEAD_BIAS: np.zeros(self.shape.vocab_size, np.float32)}
        positions = self.config.positions
        if positions.made is not None:
            table = positions.made(positions.first + self.shape.context_length, self.shape.hidden_size)
            found.update({self.parts.positions_of(side): table for side in SIDES})
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
        name, side = f"{self.parts.root}.encoder.layers.{index}", self.config.encoder
        x, stream = self._before(b, stream, f"{name}.self_attn_layer_norm")
        y = self._source_attention(b, index, x, source, f"{name}.self_attn")
        stream = self._behind(b, stream, y, f"{name}.self_attn_layer_norm")
        return self._feed_forward(b, stream, name, side)

    def _source_attention(self, b: Build, index: int, x: ir.Value, source: SourceState, name: str) -> ir.Value:
        heads, hidden = self.config.encoder.heads, self.shape.hidden_size
        qkv = [blocks.linear(b, x, part, heads.query_size, hidden, bias=True) for part in self.parts.below(name)]
        y = cross.attention_to_source(b, qkv, heads, source, name)
        return blocks.linear(b, y, f"{name}.out_proj", hidden, heads.query_size, bias=True)

    def source_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self._last_norm(b, stream, f"{self.parts.root}.encoder")

    def cross(self, b: Build, index: int, hidden: ir.Value) -> CrossState:
        heads, p = self.config.decoder.heads, self.parts
        names = p.below(f"{p.root}.decoder.layers.{index}.{p.across}")[1:]
        matrices = [b.tensors.take(f"{n}.weight", (heads.kv_size, self.shape.hidden_size)) for n in names]
        biases = [b.vector(f"{n}.bias", heads.kv_size) for n in names]
        return cross.cross_keys_values(b, hidden, matrices, biases, heads, names)

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, source: CrossState, target: TargetState
    ) -> tuple[Stream, LayerCache]:
        name, side, hidden = f"{self.parts.root}.decoder.layers.{index}", self.config.decoder, self.shape.hidden_size
        x, stream = self._before(b, stream, f"{name}.self_attn_layer_norm")
        qkv = attention.stacked_qkv(b, x, self.parts.below(f"{name}.self_attn"), side.heads, hidden, bias=True)
        y, present = cross.self_attention(b, qkv, side.heads, cache, target, f"{name}.self_attn")
        y = blocks.linear(b, y, f"{name}.self_attn.out_proj", hidden, side.heads.query_size, bias=True)
        stream = self._behind(b, stream, y, f"{name}.self_attn_layer_norm")
        return self._rest_of_layer(b, stream, source, target, name), present

    def _rest_of_layer(self, b: Build, stream: Stream, source: CrossState, target: TargetState, name: str) -> Stream:
        """What follows self-attention in a layer of the decoder."""
        side, hidden, across = self.config.decoder, self.shape.hidden_size, f"{name}.{self.parts.across}"
        size = side.heads.query_size
        x, stream = self._before(b, stream, f"{across}_layer_norm")
        query = blocks.linear(b, x, self.parts.below(across)[0], size, hidden, bias=True)
        y = cross.cross_attention(b, query, source, side.heads, target, across)
        y = blocks.linear(b, y, f"{across}.out_proj", hidden, size, bias=True)
        stream = self._behind(b, stream, y, f"{across}_layer_norm")
        return self._feed_forward(b, stream, name, side)

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self._last_norm(b, stream, f"{self.parts.root}.decoder")

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        vocab = self.shape.vocab_size
        name = self._embedding_name("decoder") if self.shape.tied_embedding else self.names.head
        weight = b.tensors.take(f"{name}.weight", (vocab, self.shape.hidden_size))
        shift = b.tensors.take(HEAD_BIAS, (vocab,))
        bias = shift.rows(0, shift.shape[0])
        return b.project(hidden, weight, bias if bias.any() else None, self.names.head, outer=True)

    def _embedding_name(self, side: str) -> str:
        return self.parts.embedding_of(side) if side in self.config.own_embeddings else self.parts.embedding

    def _embed(self, b: Build, side: Side, input_ids: ir.Value, positions: ir.Value) -> Stream:
        name, parts = f"{self.parts.root}.{side.name}", self.parts
        tokens = self._tokens(b, side, input_ids)
        norm_first = side.name in self.config.norm_before_positions
        if self.config.embedding_scale != 1 and not norm_first:
            tokens = blocks.scale(b, tokens, self.config.embedding_scale, f"{name}.embed_scale")
        table = self._position_table(b, side.name)
        place = b.graph.op("Gather", table, positions, axis=0, name=f"{node(name)}/{parts.positions}/Gather")
        if not self.config.embedding_norm:
            return Stream(tokens, place)
        if norm_first:
            return Stream(self._layer_norm(b, tokens, f"{name}.{parts.embedding_norm}", feeds_stream=True), place)
        x = norms.add(b, Stream(tokens, place), f"{name}.{parts.positions}")
        return Stream(self._layer_norm(b, x, f"{name}.{parts.embedding_norm}", feeds_stream=True))

    def _tokens(self, b: Build, side: Side, input_ids: ir.Value) -> ir.Value:
        shape = (self.shape.vocab_size, self.shape.hidden_size)
        weight = b.tensors.take(f"{self._embedding_name(side.name)}.weight", shape)
        return b.scheme.embedding(b.graph, input_ids, weight, node(self.parts.embedding_of(side.name)))

    def _position_table(self, b: Build, side: str) -> ir.Value:
        name, first = self.parts.positions_of(side), self.config.positions.first
        count = first + self._positions_of(side)
        table = b.tensors.take(name, (count, self.shape.hidden_size)).rows(first, count)
        return b.graph.array(name, np.ascontiguousarray(table, b.activation))

    def _positions_of(self, side: str) -> int:
        return self.shape.context_length

    def _feed_forward(self, b: Build, stream: Stream, name: str, side: Side) -> Stream:
        hidden, size, act = self.shape.hidden_size, side.intermediate_size, self.config.hidden_act
        norm, up, down = (f"{name}.{p}" for p in (self.parts.feed_forward_norm, self.parts.up, self.parts.down))
        x, stream = self._before(b, stream, norm)
        made = f"{up}.made"
        weight, bias = b.tensors.take(f"{up}.weight", (size, hidden)), b.vector(f"{up}.bias", size)
        if act == "relu":  # relu(x / s) is relu(x) / s
            weight, bias = b.channels.divided_rows(made, weight), b.channels.divided(made, bias)
        y = blocks.activate(b, b.project(x, weight, bias, up), act, f"{name}.activation")
        if act == "relu":
            y = b.channels.made(y, made)
        y = blocks.linear(b, y, down, hidden, size, bias=True)
        return self._behind(b, stream, y, norm)

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
