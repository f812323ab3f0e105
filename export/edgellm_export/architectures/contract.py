"""What a family is, of each kind of model: its config and its names, and methods that add its nodes piece by piece, so
that pieces can also run on their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self, runtime_checkable

import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.architectures.names import Names
from edgellm_export.blocks.build import BatchState, Build, DecoderShape, LayerCache, Stream
from edgellm_export.blocks.cross_attention import CrossState, SourceState, TargetState
from edgellm_export.checkpoint.tensors import LazyTensor

HeadKind = Literal["fill-mask", "text-classification", "token-classification", "question-answering"]


class Family(Protocol):
    """What all kinds have."""

    @property
    def names(self) -> Names: ...

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding."""

    @property
    def defaults(self) -> Mapping[str, FloatArray]:
        """What follows from the config, by name, where a checkpoint does not hold it."""

    def fitted(self, tensors: Mapping[str, LazyTensor]) -> Self:
        """The same with what these tensors, under the family's names, say of which weights are tied, whatever
        config.json says. Raises TensorError where they are not what a family can be."""


class DecoderFamily(Family, Protocol):
    """A decoder-only family."""

    @property
    def shape(self) -> DecoderShape: ...

    @property
    def known_to_genai(self) -> bool:
        """Whether onnxruntime-genai knows the family's model_type, for a graph like ours."""

    def widths(self, index: int) -> Sequence[int]:
        """Channels of the stream before layer `index`, and of each value beside it."""

    def embed(self, b: Build, input_ids: ir.Value, batch: BatchState) -> Stream:
        """input_ids: [B, S] int64. Returns the stream [B, S, hidden]."""

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        """One transformer layer. Returns the stream and the present cache."""

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        """The stream, already cut to the wanted positions, normed."""

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        """Logits [B, K, vocab] of the normed hidden states [B, K, hidden]."""


@dataclass(frozen=True)
class EncoderConfig:
    """`positions`: rows of the position table. `first_position`: the row of a sequence's first token; where it is not
    0, padding has the row before. `embedding_size`: of the tables, projected where it is not `hidden_size`. `types`: 0
    where the model has no token types. `shared`: some layers have the same matrices, so that no channels may be scaled
    and a matrix has one format."""

    vocab_size: int
    hidden_size: int
    embedding_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    positions: int
    first_position: int
    types: int
    act: str
    eps: float
    tied_embedding: bool
    shared: bool = False
    norm_bias: bool = True

    @property
    def norm_parts(self) -> Sequence[str]:
        """What norms have."""
        return ("weight", "bias") if self.norm_bias else ("weight",)

    @property
    def context_length(self) -> int:
        return self.positions - self.first_position


@dataclass(frozen=True)
class LayerNames:
    """An encoder layer's names for its tensors, `{}` being its number."""

    query: str
    key: str
    value: str
    out: str
    attention_norm: str
    up: str
    down: str
    output_norm: str

    @classmethod
    def below(cls, layer: str, **names: str) -> LayerNames:
        """`names` are those behind that of the layer."""
        return cls(**{part: f"{layer}.{name}" for part, name in names.items()})

    def of(self, index: int) -> LayerNames:
        return LayerNames(*(getattr(self, field).format(index) for field in self.__dataclass_fields__))


@dataclass(frozen=True)
class SourceMask:
    """Which tokens may be seen. keys: [B, S] int32, ones for tokens, then zeros for padding."""

    keys: ir.Value


class EncoderFamily(Family, Protocol):
    """An encoder-only family."""

    @property
    def config(self) -> EncoderConfig: ...

    @property
    def classifiers(self) -> Sequence[str]:
        """Layers whose rows are a checkpoint's labels, if it holds one of them."""

    @property
    def adds(self) -> bool:
        """Whether a layer's output is its input and what it adds, not a norm's."""

    def made_by(self, index: int) -> str | None:
        """The norm that makes what layer `index` reads, where its channels may be scaled."""

    def embed(self, b: Build, ids: ir.Value, types: ir.Value | None) -> ir.Value:
        """ids, types: [B, S] int64. Returns the states [B, S, hidden]."""

    def layer(self, b: Build, index: int, x: ir.Value, mask: SourceMask) -> ir.Value:
        """One transformer layer, [B, S, hidden] to the same."""

    def final_norm(self, b: Build, x: ir.Value) -> ir.Value:
        """What is behind the last layer: [B, S, hidden] to the same."""

    def head(self, b: Build, x: ir.Value, kind: HeadKind, labels: int, mask: ir.Value) -> ir.Value:
        """[B, S, hidden] to logits: [B, S, vocab], [B, labels], [B, S, labels] or, for the start and the end of an
        answer, [B, S, 2]. mask: [B, S] int64."""

    def head_patterns(self, kind: HeadKind) -> Sequence[str]:
        """Patterns of the tensors that `head` may take: those of other heads are left alone."""


class EncoderDecoderFamily(Family, Protocol):
    """A family of encoder-decoders. "source" is what the encoder reads, "target" what the decoder writes."""

    @property
    def shape(self) -> DecoderShape:
        """Of the decoder. `context_length`: the longest target."""

    @property
    def source_layers(self) -> int: ...

    @property
    def source_length(self) -> int | None:
        """Tokens of the longest source; None for no limit."""

    @property
    def counts_by_row(self) -> bool:
        """Whether targets of different lengths may run together."""

    @property
    def source_size(self) -> int:
        """Of the encoder's states."""

    def source_state(self, b: Build, source: SourceState) -> SourceState:
        """`source` with what all layers of the encoder share."""

    def embed_source(self, b: Build, input_ids: ir.Value, source: SourceState) -> Stream:
        """input_ids: [B, T] int64. Returns the stream [B, T, hidden]."""

    def source_layer(self, b: Build, index: int, stream: Stream, source: SourceState) -> Stream: ...

    def source_norm(self, b: Build, stream: Stream) -> ir.Value:
        """The encoder's output [B, T, hidden]."""

    def cross(self, b: Build, index: int, hidden: ir.Value) -> CrossState:
        """What layer `index` of the decoder reads of the encoder's output."""

    def target_state(self, b: Build, target: TargetState) -> TargetState:
        """`target` with what all layers of the decoder share."""

    def embed(self, b: Build, input_ids: ir.Value, target: TargetState) -> Stream:
        """input_ids: [R, S] int64. Returns the stream [R, S, hidden]."""

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, source: CrossState, target: TargetState
    ) -> tuple[Stream, LayerCache]:
        """One layer of the decoder. Returns the stream and the present cache."""

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        """The decoder's stream, already cut to the wanted positions, normed."""

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        """Logits [R, K, vocab] of [R, K, hidden]."""


@runtime_checkable
class TakesGlobalAttention(EncoderDecoderFamily, Protocol):
    """One whose tokens see those nearby."""

    def with_global_attention(self) -> Self:
        """The same where the first token of a source sees all others and is seen by them."""
