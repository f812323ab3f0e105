"""Whisper: mBART's layers over speech. The encoder reads a log-mel spectrogram through two convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.architectures.bart import HEAD_BIAS, Bart, BartConfig, Positions, read_side
from edgellm_export.architectures.names import Names
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build, DecoderShape, Stream, node
from edgellm_export.blocks.cross_attention import SourceState
from edgellm_export.checkpoint.config import MAX_POSITIONS, ConfigReader

CONV_STRIDES = (1, 2)
KERNEL = 3  # frames that a convolution sees
NAMES = Names(embedding="model.decoder.embed_tokens", head="proj_out", head_bias=HEAD_BIAS, unused=())


def parse(config: ConfigReader) -> Whisper:
    """scale_embedding says nothing: transformers reads it and does not use it."""
    config.must_be("is_encoder_decoder", True)
    config.must_be("is_causal", True, null=False)
    config.no_windows()
    hidden = config.integer("d_model")
    encoder, decoder = read_side(config, "encoder", hidden), read_side(config, "decoder", hidden)
    shape = DecoderShape(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=decoder.layers,
        num_kv_heads=decoder.heads.num_heads,
        head_dim=decoder.heads.head_dim,
        context_length=config.integer("max_target_positions", maximum=MAX_POSITIONS),
        tied_embedding=config.flag("tie_word_embeddings"),
    )
    act = config.choice("activation_function", list(blocks.ACTIVATIONS))
    own = ("decoder",)
    bart = BartConfig(shape, encoder, decoder, act, 1.0, True, False, Positions(), own_embeddings=own)
    return Whisper(bart, config.integer("num_mel_bins"), config.integer("max_source_positions", maximum=MAX_POSITIONS))


@dataclass(frozen=True)
class Whisper(Bart):
    """`positions`: of the encoder, one for two frames of its input."""

    mel_bins: int
    positions: int

    @property
    def source_length(self) -> int:
        return self.positions

    @property
    def frames(self) -> int:
        return self.positions * CONV_STRIDES[-1]

    @property
    def names(self) -> Names:
        return NAMES

    @property
    def defaults(self) -> Mapping[str, FloatArray]:
        """No bias shifts keys, nor the logits."""
        c = self.config
        attentions = [
            *((f"model.encoder.layers.{i}.self_attn", c.encoder) for i in range(c.encoder.layers)),
            *((f"model.decoder.layers.{i}.self_attn", c.decoder) for i in range(c.decoder.layers)),
            *((f"model.decoder.layers.{i}.encoder_attn", c.decoder) for i in range(c.decoder.layers)),
        ]
        found = {f"{name}.k_proj.bias": np.zeros(side.heads.kv_size, np.float32) for name, side in attentions}
        return {HEAD_BIAS: np.zeros(self.shape.vocab_size, np.float32), **found}

    def embed_source(self, b: Build, features: ir.Value, source: SourceState) -> Stream:
        """features: [B, mel_bins, frames]. Returns the stream [B, positions, hidden]."""
        x = b.graph.cast(features, b.activation, "/model/encoder/features/Cast")
        for i, stride in enumerate(CONV_STRIDES, 1):
            name = f"model.encoder.conv{i}"
            x = self._convolve(b, x, name, self.mel_bins if i == 1 else self.shape.hidden_size, stride)
            x = blocks.activate(b, x, "gelu", f"{name}.gelu")
        x = b.graph.op("Transpose", x, name="/model/encoder/frames/Transpose", perm=[0, 2, 1])
        name = "model.encoder.embed_positions.weight"
        table = b.tensors.take(name, (self.positions, self.shape.hidden_size)).rows(0, self.positions)
        return Stream(x, b.graph.array(name, np.ascontiguousarray(table, b.activation)))

    def _convolve(self, b: Build, x: ir.Value, name: str, channels: int, stride: int) -> ir.Value:
        """Float in all precisions: it is a small part of the weights, and reads what nothing has normed."""
        size = self.shape.hidden_size
        weight = b.tensors.take(f"{name}.weight", (size, channels, KERNEL)).rows(0, size)
        arrays = (weight, b.vector(f"{name}.bias", size))
        parts = [
            b.graph.array(f"{name}.{part}", np.ascontiguousarray(array, b.activation))
            for part, array in zip(("weight", "bias"), arrays, strict=True)
        ]
        return b.graph.op(
            "Conv", x, *parts, name=f"{node(name)}/Conv", kernel_shape=[KERNEL], pads=[1, 1], strides=[stride]
        )
