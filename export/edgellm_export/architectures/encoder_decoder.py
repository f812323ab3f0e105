"""What a family of encoder-decoder models is, and how one is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.architectures import ENCODER_DECODERS, family
from edgellm_export.blocks.build import Build, DecoderShape, LayerCache, Stream
from edgellm_export.blocks.cross_attention import CrossState, SourceState, TargetState
from edgellm_export.checkpoint.config import ConfigReader


class EncoderDecoder(Protocol):
    """A family with its config: adds its nodes piece by piece, so that pieces can also run on their own.

    "source" is what the encoder reads, "target" what the decoder writes.
    """

    @property
    def shape(self) -> DecoderShape:
        """Of the decoder. `context_length`: the longest target."""

    @property
    def source_layers(self) -> int: ...

    @property
    def source_length(self) -> int | None:
        """Tokens of the longest source; None for no limit."""

    @property
    def prefix(self) -> str:
        """What the names of tensors begin with."""

    @property
    def defaults(self) -> Mapping[str, FloatArray]:
        """What follows from the config, by name, where a checkpoint does not hold it."""

    @property
    def unused(self) -> Sequence[str]:
        """Patterns of the names of tensors that checkpoints may hold for nothing."""

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


def open_encoder_decoder(config: Mapping[str, Any]) -> EncoderDecoder:
    """The family that config.json describes. Raises UnsupportedModelError or CheckpointError."""
    reader = ConfigReader(config)
    architecture: EncoderDecoder = family(ENCODER_DECODERS[config["model_type"]]).parse(reader)
    reader.finish()
    return architecture
