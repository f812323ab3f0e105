"""What decoder-only families share: the sizes in their configs, an embedding, and a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

import onnx_ir as ir

from edgellm_export.architectures.names import USUAL, Names
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, DecoderShape, Heads, Stream
from edgellm_export.blocks.rope import Rope
from edgellm_export.checkpoint.config import ConfigReader


def read_shape(
    config: ConfigReader, hidden: int, layers: int, heads: Heads, *,
    context: int, tied: bool, ropes: Sequence[Rope] = (),
) -> DecoderShape:  # fmt: skip
    """A shape with what most configs name alike. `tied`: what one that is silent about it means."""
    return DecoderShape(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=layers,
        num_kv_heads=heads.num_kv_heads,
        head_dim=heads.head_dim,
        context_length=context,
        tied_embedding=config.flag("tie_word_embeddings", tied),
        ropes=ropes,
    )


class ShapedConfig(Protocol):
    @property
    def shape(self) -> DecoderShape: ...


Config = TypeVar("Config", bound=ShapedConfig, covariant=True)


@dataclass(frozen=True)
class NamedDecoder(Generic[Config]):
    """A family's config, and all of it but the layers and the final norm."""

    known_to_genai: ClassVar[bool] = True

    config: Config
    names: Names = USUAL

    @property
    def shape(self) -> DecoderShape:
        return self.config.shape

    def embed(self, b: Build, input_ids: ir.Value, batch: BatchState) -> Stream:
        return Stream(
            blocks.embedding(b, input_ids, self.names.embedding, self.shape.vocab_size, self.shape.hidden_size)
        )

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        return blocks.head(b, hidden, self.names.embedding, self.names.head)
