"""LED (Beltagy et al., arXiv 2004.05150): BART whose encoder sees the tokens nearby. No token sees all others, as in
transformers where nobody says which ones shall, and the layers for that are left alone; or the first one does, and all
others see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import onnx_ir as ir

from edgellm_export.architectures.bart import Bart, Positions, parse_bart
from edgellm_export.architectures.names import Names
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build, node
from edgellm_export.blocks.cross_attention import SourceState, attention_to_source
from edgellm_export.blocks.local_attention import END, band, behind_first, cut, first, local_attention
from edgellm_export.checkpoint.config import MAX_POSITIONS, ConfigReader, short

GLOBAL = "model.encoder.layers.*.self_attn.longformer_self_attn.*_global.*"
WIDEST = 1 << 16  # tokens
SIDES = ("query", "key", "value")


def parse(config: ConfigReader) -> Led:
    """scale_embedding says nothing here: transformers does not read it."""
    found = parse_bart(
        config, pre_norm=False, embedding_norm=True, positions=Positions(), length="max_decoder_position_embeddings"
    )
    reaches = _reaches(config, found.source_layers)
    longest = config.integer("max_encoder_position_embeddings", maximum=MAX_POSITIONS)
    return Led(replace(found.config, embedding_scale=1.0), reaches, longest)


def _reaches(config: ConfigReader, layers: int) -> Sequence[int]:
    """How far the tokens of each layer see to either side."""
    given: Any = config.data.get("attention_window")
    windows: list[Any] = given if isinstance(given, list) else [given] * layers
    right = len(windows) == layers and all(type(w) is int and 0 < w <= WIDEST and w % 2 == 0 for w in windows)
    config.require(
        right, f"attention_window is {short(given)}, expected an even number, or one for each of {layers} layers"
    )
    return [w // 2 for w in windows] if right else [1] * layers


@dataclass(frozen=True)
class Led(Bart):
    """`reaches`: of each layer of the encoder. `longest`: tokens of a source. `first_is_global`: whether a source's
    first token sees all others, and they it, however far away."""

    reaches: Sequence[int]
    longest: int
    first_is_global: bool = False

    def with_global_attention(self) -> Self:
        return replace(self, first_is_global=True)

    @property
    def source_length(self) -> int | None:
        return self.longest

    @property
    def names(self) -> Names:
        usual, left = super().names, () if self.first_is_global else (GLOBAL,)
        return replace(usual, prefix="led.", copies={"model.": "led."}, unused=(*usual.unused, *left))

    def _positions_of(self, side: str) -> int:
        return self.longest if side == "encoder" else self.shape.context_length

    def _source_attention(self, b: Build, index: int, x: ir.Value, source: SourceState, name: str) -> ir.Value:
        heads, hidden, reach = self.config.encoder.heads, self.shape.hidden_size, self.reaches[index]
        assert source.mask is not None
        qkv = [self._projected(b, x, name, side) for side in SIDES]
        bias = band(b, np.zeros((1, 2 * reach + 1), np.float32), reach, f"/encoder/near_{reach}")
        if self.first_is_global:
            blocks_of_others, beside = cut(b, behind_first(b, source.mask), reach), first(b, qkv, source.mask, name)
            y = local_attention(b, qkv, heads, blocks_of_others, bias, name, beside)
            y = self._with_first(b, x, y, source, name)
        else:
            y = local_attention(b, qkv, heads, cut(b, source.mask, reach), bias, name)
        return blocks.linear(b, y, f"{name}.output", hidden, heads.query_size, bias=True)

    def _with_first(self, b: Build, x: ir.Value, local: ir.Value, source: SourceState, name: str) -> ir.Value:
        """What attention gives, `local`, with the first token's, which sees all by queries, keys and values of its
        own."""
        g, place = b.graph, node(f"{name}.global")
        token = g.op("Slice", x, g.ints(0), g.ints(1), g.ints(1), name=f"{place}/First")
        qkv = [
            self._projected(b, read, name, f"{side}_global") for read, side in zip((token, x, x), SIDES, strict=True)
        ]
        y = attention_to_source(b, qkv, self.config.encoder.heads, source, f"{name}.global")
        others = g.op("Slice", local, g.ints(1), g.ints(END), g.ints(1), name=f"{place}/Others")
        return g.op("Concat", y, others, axis=1, name=f"{place}/Join")

    def _projected(self, b: Build, x: ir.Value, name: str, side: str) -> ir.Value:
        size = self.config.encoder.heads.query_size
        return blocks.linear(b, x, f"{name}.longformer_self_attn.{side}", size, self.shape.hidden_size, bias=True)
