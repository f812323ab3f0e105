"""What decoder-only families share: an embedding and a head with the names that the family gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

import onnx_ir as ir

from edgellm_export.architectures.names import USUAL, Names
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, DecoderShape, Stream


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
