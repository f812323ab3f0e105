"""T5, T5 v1.1 and Flan-T5: relative positions, RMS norms before each block, attention without scaling, no biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import onnx_ir as ir

from edgellm.errors import TensorError
from edgellm.types import FloatArray
from edgellm_export.architectures.names import Names, differ, head_differs
from edgellm_export.blocks import cross_attention as cross
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks import norms
from edgellm_export.blocks.build import Build, DecoderShape, Heads, LayerCache, Stream, node
from edgellm_export.blocks.cross_attention import CrossState, RelativePositions, SourceState, TargetState
from edgellm_export.checkpoint.config import ConfigReader
from edgellm_export.checkpoint.tensors import LazyTensor, ZeroTensor

CONTEXT = 1 << 20  # tokens of a target: relative positions have no end, the memory does

ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
NEVER_USED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
NAMES = Names(prefix="", embedding="shared", aliases=ALIASES, unused=(*ALIASES, NEVER_USED))
FEED_FORWARDS = ("relu", "gated-gelu", "gated-silu", "gelu", "silu", "gated-relu")
ACTIVATIONS = tuple(blocks.ACTIVATIONS)


@dataclass(frozen=True)
class T5Config:
    """`source_layers`: of the encoder. `gated`: activation(wi_0 x) * wi_1 x, without: activation(wi x).
    `scaled`: what the head reads is divided by the root of its size. `shared_positions`: the first layer's are those of
    all; otherwise each layer has its own."""

    shape: DecoderShape
    heads: Heads
    source_layers: int
    positions: RelativePositions
    intermediate_size: int
    layer_norm_epsilon: float
    hidden_act: str
    gated: bool
    scaled: bool
    shared_positions: bool = True


def parse(config: ConfigReader) -> T5:
    """tie_word_embeddings says whether the head's input is scaled, as in transformers 5: what is tied, the weights say
    where they are read. There scale_decoder_outputs says it, too, and wins."""
    tied = config.data.get("tie_word_embeddings") is not False
    return parse_t5(config, scaled=config.flag("scale_decoder_outputs", tied))


def parse_t5(config: ConfigReader, *, scaled: bool) -> T5:
    head_dim, count = config.integer("d_kv"), config.integer("num_heads")
    config.require(head_dim % 8 == 0, f"d_kv is {head_dim}; ONNX Runtime's attention takes multiples of 8")
    layers = config.layers("num_layers")
    config.must_be("is_encoder_decoder", True)
    config.must_be("is_causal", True, null=False)
    config.no_windows()
    kind = config.choice("feed_forward_proj", FEED_FORWARDS)
    act = "gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-")
    shape = DecoderShape(
        vocab_size=config.integer("vocab_size"),
        hidden_size=config.integer("d_model"),
        num_layers=config.layers("num_decoder_layers", layers),
        num_kv_heads=count,
        head_dim=head_dim,
        context_length=CONTEXT,
        tied_embedding=config.data.get("tie_word_embeddings") is not False,
    )
    return T5(
        T5Config(
            shape=shape,
            heads=Heads(count, count, head_dim, scale=1.0),
            source_layers=layers,
            positions=RelativePositions(
                config.integer("relative_attention_num_buckets", minimum=4),
                config.integer("relative_attention_max_distance", minimum=4, maximum=1 << 16),
            ),
            intermediate_size=config.integer("d_ff"),
            layer_norm_epsilon=config.number("layer_norm_epsilon"),
            hidden_act=act if config.data.get("dense_act_fn") is None else config.choice("dense_act_fn", ACTIVATIONS),
            gated=config.flag("is_gated_act", kind.startswith("gated-")),
            scaled=scaled,
        )
    )


@dataclass(frozen=True)
class T5:
    counts_by_row: ClassVar = True
    config: T5Config
    source_length: int | None = None
    names: Names = NAMES

    @property
    def shape(self) -> DecoderShape:
        return self.config.shape

    @property
    def tied(self) -> bool:
        return self.shape.tied_embedding

    def fitted(self, tensors: Mapping[str, LazyTensor]) -> Self:
        embedding = f"{self.names.embedding}.weight"
        if wrong := [name for name in ALIASES if differ(tensors, embedding, name)]:
            raise TensorError(
                f"{wrong[0]} and {embedding} differ; edgellm builds this family with one table for sources and targets"
            )
        if isinstance(tensors.get(f"{self.names.head}.weight"), ZeroTensor):  # of a plan, which reads no weights
            return self
        tied = not head_differs(tensors, self.names)
        return replace(self, config=replace(self.config, shape=replace(self.shape, tied_embedding=tied)))

    @property
    def defaults(self) -> Mapping[str, FloatArray]:
        return {}

    @property
    def source_layers(self) -> int:
        return self.config.source_layers

    @property
    def source_size(self) -> int:
        return self.shape.hidden_size

    def source_state(self, b: Build, source: SourceState) -> SourceState:
        return self._with_positions(b, source, 0) if self.config.shared_positions else source

    def _with_positions(self, b: Build, source: SourceState, index: int) -> SourceState:
        assert source.positions is not None
        weight = self._distances(b, "encoder", index)
        place = self._place("encoder", index)
        return replace(source, bias=self.config.positions.of_source(b, weight, source.positions, place, b.activation))

    def embed_source(self, b: Build, input_ids: ir.Value, source: SourceState) -> Stream:
        return Stream(self._embedding(b, input_ids, "encoder"))

    def source_layer(self, b: Build, index: int, stream: Stream, source: SourceState) -> Stream:
        name = f"encoder.block.{index}"
        source = source if self.config.shared_positions else self._with_positions(b, source, index)
        x, stream = self._norm(b, stream, f"{name}.layer.0.layer_norm")
        stream = Stream(stream.residual, self._source_attention(b, x, source, f"{name}.layer.0.SelfAttention"))
        return self._feed_forward(b, stream, f"{name}.layer.1")

    def _source_attention(self, b: Build, x: ir.Value, source: SourceState, name: str) -> ir.Value:
        qkv = [self._linear(b, x, f"{name}.{side}") for side in "qkv"]
        return self._output(b, cross.attention_to_source(b, qkv, self.config.heads, source, name), f"{name}.o")

    def source_norm(self, b: Build, stream: Stream) -> ir.Value:
        residual = norms.add(b, stream, "encoder.residual")
        weight = b.vector("encoder.final_layer_norm.weight", self.shape.hidden_size)
        return norms.rms_norm(b, residual, weight, self.config.layer_norm_epsilon, "encoder.final_layer_norm")

    def cross(self, b: Build, index: int, hidden: ir.Value) -> CrossState:
        name = f"decoder.block.{index}.layer.1.EncDecAttention"
        names = [f"{name}.k", f"{name}.v"]
        return cross.cross_keys_values(
            b, hidden, [self._matrix(b, n) for n in names], [None, None], self.config.heads, names
        )

    def target_state(self, b: Build, target: TargetState) -> TargetState:
        return self._with_target_positions(b, target, 0) if self.config.shared_positions else target

    def _with_target_positions(self, b: Build, target: TargetState, index: int) -> TargetState:
        weight, place = self._distances(b, "decoder", index), self._place("decoder", index)
        bias = self.config.positions.of_target(b, weight, target.total, target.positions, place, b.activation)
        return replace(target, bias=bias)

    def embed(self, b: Build, input_ids: ir.Value, target: TargetState) -> Stream:
        return Stream(self._embedding(b, input_ids, "decoder"))

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, source: CrossState, target: TargetState
    ) -> tuple[Stream, LayerCache]:
        name = f"decoder.block.{index}"
        target = target if self.config.shared_positions else self._with_target_positions(b, target, index)
        x, stream = self._norm(b, stream, f"{name}.layer.0.layer_norm")
        attention = f"{name}.layer.0.SelfAttention"
        matrices = [self._matrix(b, f"{attention}.{side}") for side in "qkv"]
        qkv = b.project(x, cross.stacked(f"{attention}.qkv", matrices), None, f"{attention}.qkv")
        y, present = cross.self_attention(b, qkv, self.config.heads, cache, target, attention)
        stream = Stream(stream.residual, self._output(b, y, f"{attention}.o"))
        x, stream = self._norm(b, stream, f"{name}.layer.1.layer_norm")
        attention = f"{name}.layer.1.EncDecAttention"
        query = self._linear(b, x, f"{attention}.q")
        y = cross.cross_attention(b, query, source, self.config.heads, target, attention)
        stream = Stream(stream.residual, self._output(b, y, f"{attention}.o"))
        return self._feed_forward(b, stream, f"{name}.layer.2"), present

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self._norm(b, stream, "decoder.final_layer_norm")[0]

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        if self.config.scaled:
            hidden = blocks.scale(b, hidden, self.shape.hidden_size**-0.5, "lm_head.scale")
        return blocks.head(b, hidden, self.names.embedding, self.names.head)

    def _embedding(self, b: Build, input_ids: ir.Value, part: str) -> ir.Value:
        weight = b.tensors.take(f"{self.names.embedding}.weight", (self.shape.vocab_size, self.shape.hidden_size))
        return b.scheme.embedding(b.graph, input_ids, weight, f"/{part}/embed_tokens")

    def _feed_forward(self, b: Build, stream: Stream, name: str) -> Stream:
        c, hidden = self.config, self.shape.hidden_size
        x, stream = self._norm(b, stream, f"{name}.layer_norm")
        name, made = f"{name}.DenseReluDense", f"{name}.DenseReluDense.hidden"
        first, *second = [
            b.tensors.take(f"{name}.{part}.weight", (c.intermediate_size, hidden))
            for part in (("wi_0", "wi_1") if c.gated else ("wi",))
        ]
        if second:
            y = blocks.activate(b, b.project(x, first, None, f"{name}.wi_0"), c.hidden_act, name)
            up = b.project(x, b.channels.divided_rows(made, second[0]), None, f"{name}.wi_1")
            y = b.channels.made(b.graph.op("Mul", y, up, name=f"{node(name)}/Mul"), made)
        elif c.hidden_act == "relu":  # relu(x / s) is relu(x) / s
            y = b.project(x, b.channels.divided_rows(made, first), None, f"{name}.wi")
            y = b.channels.made(blocks.activate(b, y, c.hidden_act, name), made)
        else:
            y = blocks.activate(b, b.project(x, first, None, f"{name}.wi"), c.hidden_act, name)
        return Stream(stream.residual, blocks.linear(b, y, f"{name}.wo", hidden, c.intermediate_size, bias=False))

    def _norm(self, b: Build, stream: Stream, name: str) -> tuple[ir.Value, Stream]:
        weight = b.vector(f"{name}.weight", self.shape.hidden_size)
        return norms.add_rms_norm(b, stream, weight, self.config.layer_norm_epsilon, name)

    def _distances(self, b: Build, part: str, index: int) -> LazyTensor:
        shape = (self.config.positions.buckets, self.config.heads.num_heads)
        return b.tensors.take(f"{part}.block.{index}.layer.0.SelfAttention.relative_attention_bias.weight", shape)

    def _place(self, part: str, index: int) -> str:
        return f"/{part}/relative" + ("" if self.config.shared_positions else f".{index}")

    def _matrix(self, b: Build, name: str) -> LazyTensor:
        return b.tensors.take(f"{name}.weight", (self.config.heads.query_size, self.shape.hidden_size))

    def _linear(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        return b.project(x, self._matrix(b, name), None, name)

    def _output(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        return blocks.linear(b, x, name, self.shape.hidden_size, self.config.heads.query_size, bias=False)
