"""What decoder-only families share: the sizes in their configs, an embedding, and a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.architectures.names import USUAL, Names, head_differs
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, DecoderShape, Heads, Stream
from edgellm_export.blocks.rope import Rope
from edgellm_export.checkpoint.config import ConfigReader
from edgellm_export.checkpoint.tensors import LazyTensor


def read_shape(
    config: ConfigReader, hidden: int, layers: int, heads: Heads, *,
    context: int, ropes: Sequence[Rope] = (),
) -> DecoderShape:  # fmt: skip
    """A shape with what most configs name alike."""
    return DecoderShape(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=layers,
        num_kv_heads=heads.num_kv_heads,
        head_dim=heads.head_dim,
        context_length=context,
        tied_embedding=config.flag("tie_word_embeddings"),
        ropes=ropes,
    )


class ShapedConfig(Protocol):
    @property
    def shape(self) -> DecoderShape: ...

    __dataclass_fields__: ClassVar[dict[str, Any]]


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

    @property
    def tied(self) -> bool:
        return self.shape.tied_embedding

    @property
    def defaults(self) -> Mapping[str, FloatArray]:
        return {}

    def fitted(self, tensors: Mapping[str, LazyTensor]) -> Self:
        if not self.tied or not head_differs(tensors, self.names):
            return self
        return replace(self, config=replace(self.config, shape=replace(self.shape, tied_embedding=False)))

    def widths(self, index: int) -> Sequence[int]:
        return (self.shape.hidden_size,)

    def embed(self, b: Build, input_ids: ir.Value, batch: BatchState) -> Stream:
        return Stream(
            blocks.embedding(b, input_ids, self.names.embedding, self.shape.vocab_size, self.shape.hidden_size)
        )

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        return blocks.head(b, hidden, self.names.embedding, self.names.head, self.names.head_bias)
