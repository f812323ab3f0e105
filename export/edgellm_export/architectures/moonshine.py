"""Moonshine: an encoder that reads samples themselves through three convolutions, and a decoder with a gated MLP; heads
rotate in part, neighbours together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import onnx_ir as ir

from edgellm.errors import UnsupportedModelError
from edgellm.types import FloatArray
from edgellm_export.architectures.names import Names, head_differs
from edgellm_export.blocks import cross_attention as cross
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks import norms
from edgellm_export.blocks.build import Build, DecoderShape, Heads, LayerCache, Stream, node
from edgellm_export.blocks.cross_attention import CrossState, SourceState, TargetState
from edgellm_export.blocks.rope import StaticRope, read_rope, rope_request
from edgellm_export.blocks.rotary import tables, tables_as_long_as, turned_neighbours
from edgellm_export.checkpoint.config import MAX_POSITIONS, ConfigReader
from edgellm_export.checkpoint.tensors import LazyTensor, PaddedHeads, RowSlice

NAMES = Names(embedding="model.decoder.embed_tokens", head="proj_out", unused=())
EPS = 1e-5
STEP = 8  # what attention's kernels want a head to be a multiple of
# Convolutions: samples or frames that they see and go on by, and channels, in hidden sizes.
KERNELS, STRIDES, CHANNELS = (127, 7, 3), (64, 3, 2), (1, 2, 1)
SHORTEST = 64 * (3 * 2 + 6) + 127  # samples that give the last one something to see: three frames of the second
LONGEST = 64  # seconds that the models are made for; attention needs memory for the square of them
ROPES = {"default": "default"}


def parse(config: ConfigReader) -> Moonshine:
    config.must_be("is_encoder_decoder", True)
    hidden, count = config.integer("hidden_size"), config.integer("encoder_num_attention_heads")
    for key in ("encoder_num_key_value_heads", "decoder_num_attention_heads", "decoder_num_key_value_heads"):
        config.must_be(key, count)  # for which transformers has the heads of the other side in places
    config.require(hidden % count == 0, f"hidden_size is {hidden}, expected a multiple of the {count} heads")
    size, longest = hidden // count, config.integer("max_position_embeddings", maximum=MAX_POSITIONS)
    theta, share = config.number("rope_theta"), config.number("partial_rotary_factor")
    request = rope_request(config, head_dim=size, positions=longest, theta=theta, share=share)
    if request.rotary_dim < 2 or request.rotary_dim % 2:
        raise UnsupportedModelError(f"config.json: {request.rotary_dim} channels of a head are to rotate, not pairs")
    rope = read_rope(config, request, ROPES)
    assert isinstance(rope, StaticRope)
    padded = -(-size // STEP) * STEP
    shape = DecoderShape(
        vocab_size=config.integer("vocab_size"), hidden_size=hidden, num_kv_heads=count, head_dim=padded,
        num_layers=config.layers("decoder_num_hidden_layers"), context_length=longest,
        tied_embedding=config.flag("tie_word_embeddings"),
    )  # fmt: skip
    acts = [config.choice(f"{side}_hidden_act", list(blocks.ACTIVATIONS)) for side in ("encoder", "decoder")]
    return Moonshine(
        shape, Heads(count, count, padded, scale=size**-0.5), size, rope, config.layers("encoder_num_hidden_layers"),
        config.integer("intermediate_size"), acts[0], acts[1], config.flag("attention_bias"),
    )  # fmt: skip


@dataclass(frozen=True)
class Moonshine:
    """`head_dim`: of the checkpoint's heads, to which `heads` add zeros."""

    counts_by_row: ClassVar = True
    shape: DecoderShape
    heads: Heads
    head_dim: int
    rope: StaticRope
    source_layers: int
    intermediate_size: int
    encoder_act: str
    decoder_act: str
    attention_bias: bool
    source_length: int | None = None
    names: Names = NAMES

    @property
    def tied(self) -> bool:
        return self.shape.tied_embedding

    @property
    def source_size(self) -> int:
        return self.shape.hidden_size

    def fitted(self, tensors: Mapping[str, LazyTensor]) -> Self:
        if not self.tied or not head_differs(tensors, self.names):
            return self
        return replace(self, shape=replace(self.shape, tied_embedding=False))

    @property
    def defaults(self) -> Mapping[str, FloatArray]:
        return {}

    def source_state(self, b: Build, source: SourceState) -> SourceState:
        return source

    def target_state(self, b: Build, target: TargetState) -> TargetState:
        return target

    def embed_source(self, b: Build, samples: ir.Value, source: SourceState) -> Stream:
        """samples: [B, 1, samples]. Returns the stream [B, T, hidden]."""
        g, place = b.graph, "/model/encoder"
        x = g.cast(samples, b.activation, f"{place}/samples/Cast")
        x = g.op("Tanh", self._convolve(b, x, 1), name=f"{place}/Tanh")
        x = norms.group_norm(b, x, "model.encoder.groupnorm", self.shape.hidden_size, EPS)
        for number in (2, 3):
            x = blocks.activate(b, self._convolve(b, x, number), "gelu", f"model.encoder.conv{number}.gelu")
        return Stream(g.op("Transpose", x, name=f"{place}/frames/Transpose", perm=[0, 2, 1]))

    def _convolve(self, b: Build, x: ir.Value, number: int) -> ir.Value:
        """Float in all precisions, as Whisper's."""
        name, kernel, hidden = f"model.encoder.conv{number}", KERNELS[number - 1], self.shape.hidden_size
        rows = CHANNELS[number - 1] * hidden
        columns = 1 if number == 1 else CHANNELS[number - 2] * hidden
        arrays = {"weight": b.tensors.take(f"{name}.weight", (rows, columns, kernel)).rows(0, rows)}
        if number > 1:
            arrays["bias"] = b.vector(f"{name}.bias", rows)
        parts = [b.graph.array(f"{name}.{part}", each.astype(b.activation)) for part, each in arrays.items()]
        return b.graph.op(
            "Conv", x, *parts, name=f"{node(name)}/Conv", kernel_shape=[kernel], strides=[STRIDES[number - 1]]
        )

    def source_layer(self, b: Build, index: int, stream: Stream, source: SourceState) -> Stream:
        name = f"model.encoder.layers.{index}"
        x, stream = self._norm(b, stream, f"{name}.input_layernorm")
        qkv = self._qkv(
            b, x, b.graph.ints(0), tables_as_long_as(b, self.rope, x, "/model/encoder/rope"), f"{name}.self_attn"
        )
        y = cross.attention_to_source(b, qkv, self.heads, source, f"{name}.self_attn")
        stream = Stream(stream.residual, self._out(b, y, f"{name}.self_attn.o_proj"))
        x, stream = self._norm(b, stream, f"{name}.post_attention_layernorm")
        size, names = self.intermediate_size, (f"{name}.mlp.fc1", f"{name}.mlp.fc2")
        return Stream(stream.residual, blocks.ungated(b, x, *names, size, self.encoder_act, bias=True))

    def source_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self._norm(b, stream, "model.encoder.layer_norm")[0]

    def cross(self, b: Build, index: int, hidden: ir.Value) -> CrossState:
        names = [f"model.decoder.layers.{index}.encoder_attn.{side}_proj" for side in "kv"]
        sides = [self._padded(b, name) for name in names]
        matrices, biases = [matrix for matrix, _ in sides], [bias for _, bias in sides]
        return cross.cross_keys_values(b, hidden, matrices, biases, self.heads, names)

    def embed(self, b: Build, input_ids: ir.Value, target: TargetState) -> Stream:
        sizes = self.shape.vocab_size, self.shape.hidden_size
        return Stream(blocks.embedding(b, input_ids, self.names.embedding, *sizes))

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, source: CrossState, target: TargetState
    ) -> tuple[Stream, LayerCache]:
        name = f"model.decoder.layers.{index}"
        x, stream = self._norm(b, stream, f"{name}.input_layernorm")
        sides = self._qkv(b, x, target.positions, tables(b, self.rope, self.shape.context_length), f"{name}.self_attn")
        qkv = b.graph.op("Concat", *sides, name=f"{node(name)}/qkv/Concat", axis=-1)
        y, present = cross.self_attention(b, qkv, self.heads, cache, target, f"{name}.self_attn")
        stream = Stream(stream.residual, self._out(b, y, f"{name}.self_attn.o_proj"))
        x, stream = self._norm(b, stream, f"{name}.post_attention_layernorm")
        query = self._side(b, x, f"{name}.encoder_attn.q_proj")
        y = cross.cross_attention(b, query, source, self.heads, target, f"{name}.encoder_attn")
        stream = Stream(stream.residual, self._out(b, y, f"{name}.encoder_attn.o_proj"))
        x, stream = self._norm(b, stream, f"{name}.final_layernorm")
        return Stream(stream.residual, self._gated(b, x, f"{name}.mlp")), present

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self._norm(b, stream, "model.decoder.norm")[0]

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        return blocks.head(b, hidden, self.names.embedding, self.names.head)

    def _norm(self, b: Build, stream: Stream, name: str) -> tuple[ir.Value, Stream]:
        return norms.add_layer_norm(b, stream, name, self.shape.hidden_size, EPS, has=("weight",))

    def _side(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        """Queries, keys or values of heads with zeros behind them."""
        return b.project(x, *self._padded(b, name), name)

    def _padded(self, b: Build, name: str) -> tuple[LazyTensor, FloatArray | None]:
        rows, columns = self.heads.num_heads * self.head_dim, self.shape.hidden_size
        sizes, bias = (self.head_dim, self.heads.head_dim), None
        if self.attention_bias:
            vector = PaddedHeads(b.tensors.take(f"{name}.bias", (rows,)), *sizes)
            bias = vector.rows(0, vector.shape[0])
        return PaddedHeads(b.tensors.take(f"{name}.weight", (rows, columns)), *sizes), bias

    def _out(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        sizes = self.shape.hidden_size, self.heads.num_heads * self.head_dim
        weight = b.tensors.take(f"{name}.weight", sizes)
        return b.project(x, PaddedHeads(weight, self.head_dim, self.heads.head_dim, axis=1), None, name)

    def _qkv(
        self, b: Build, x: ir.Value, positions: ir.Value, cos_sin: tuple[ir.Value, ir.Value], name: str
    ) -> list[ir.Value]:
        """Of tokens at `positions` [B, S], or from one [1] on, turned by them."""
        count, rotary_dim = self.heads.num_heads, 2 * len(self.rope.inv_freq)
        sides = [self._side(b, x, f"{name}.{side}_proj") for side in "qkv"]
        turned = [
            turned_neighbours(b, side, positions, cos_sin, count, rotary_dim, f"{name}.{letter}_rotary")
            for letter, side in zip("qk", sides, strict=False)
        ]
        return [*turned, sides[2]]

    def _gated(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        """fc1 has what is opened above what opens it."""
        size, hidden = self.intermediate_size, self.shape.hidden_size
        whole, bias = b.tensors.take(f"{name}.fc1.weight", (2 * size, hidden)), b.vector(f"{name}.fc1.bias", 2 * size)
        up, gate = (
            (
                RowSlice(f"{name}.{part}.weight", whole, i * size, (i + 1) * size),
                bias[i * size : (i + 1) * size],
                f"{name}.{part}",
            )
            for i, part in enumerate(("up", "gate"))
        )
        y = blocks.gated_by(b, x, gate, up, name, self.decoder_act)
        return blocks.linear(b, y, f"{name}.fc2", hidden, size, bias=True)
