"""RoFormer (Su et al., arXiv 2104.09864): BERT with rotary positions in the place of a table, by which neighbouring
channels turn together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import onnx_ir as ir

from edgellm.errors import TensorError
from edgellm.types import FloatArray
from edgellm_export.architectures import post_norm
from edgellm_export.architectures.bert import MASKED, bert_names, bert_places
from edgellm_export.architectures.contract import SourceMask
from edgellm_export.architectures.encoder import PostNormEncoder, TextHead, read_config
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.attention import apart as rows_apart
from edgellm_export.blocks.build import Build, Heads
from edgellm_export.blocks.encoder_attention import Scores, Sides, apart, self_attention
from edgellm_export.blocks.rope import StaticRope
from edgellm_export.checkpoint.config import ConfigReader
from edgellm_export.checkpoint.tensors import LazyTensor, PairsApart, ZeroTensor

PREFIX, BASE = "roformer.", 10000.0
TABLE = f"{PREFIX}encoder.embed_positions.weight"  # sines, then cosines, of each position
ROUNDED = 0.01  # what a table in 16 bits may be off


@dataclass(frozen=True, eq=False)
class Sinusoids(StaticRope):
    """Whose angles are of 64 bits, as in transformers' table."""

    def tables(self, positions: int) -> tuple[FloatArray, FloatArray]:
        half = len(self.inv_freq)
        angles = np.arange(positions)[:, None] / BASE ** (np.arange(half) / half)
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def parse(config: ConfigReader) -> RoFormer:
    config.must_be("rotary_value", False)
    sizes = read_config(config)
    size = config.optional_integer("embedding_size") or sizes.hidden_size
    head_dim = sizes.hidden_size // sizes.num_heads
    config.require(head_dim % 8 == 0, f"the head size is {head_dim}; ONNX Runtime's attention takes multiples of 8")
    names, places = bert_names(PREFIX), replace(bert_places(PREFIX), positions="")
    text = TextHead("classifier", "classifier.dense", sizes.act, ("classifier.*",), "classifier.out_proj")
    names = replace(names, unused=(*names.unused, TABLE))
    return RoFormer(replace(sizes, embedding_size=size), names, places, MASKED, text)


@dataclass(frozen=True)
class RoFormer(PostNormEncoder):
    @property
    def heads(self) -> Heads:
        c = self.config
        head_dim = c.hidden_size // c.num_heads
        return Heads(c.num_heads, c.num_heads, head_dim, neighbours=head_dim)

    @property
    def rope(self) -> StaticRope:
        half = self.heads.head_dim // 2
        return Sinusoids(np.array(BASE ** -(np.arange(half) / half), np.float32))

    def fitted(self, tensors: Mapping[str, LazyTensor]) -> Self:
        """Raises TensorError for a table that has anything else than sinusoids."""
        table = tensors.get(TABLE)
        if table is not None and not isinstance(table, ZeroTensor):
            cos, sin = self.rope.tables(self.config.positions)
            usual = np.concatenate([sin, cos], 1)
            if table.shape != usual.shape or np.abs(table.rows(0, len(usual)) - usual).max() > ROUNDED:
                raise TensorError(f"{TABLE} is no table of sinusoids {list(usual.shape)}, which edgellm builds")
        return super().fitted(tensors)

    def layer(self, b: Build, index: int, x: ir.Value, mask: SourceMask) -> ir.Value:
        c, n = self.config, self.layer_names(index)
        sides = self._turnable(apart(b, (n.query, n.key, n.value), c.hidden_size, c.hidden_size))
        y = self_attention(b, x, sides, mask.keys, Scores(c.num_heads, rope=self.rope, positions=c.positions))
        y = blocks.linear(b, y, n.out, c.hidden_size, c.hidden_size, bias=True)
        return post_norm.after_attention(b, c, n, x, y)

    def _turnable(self, sides: Sides) -> Sides:
        """With the rows of queries and keys in the order in which they are turned."""
        heads, (*weights, value) = self.heads, sides.weights
        turned = [PairsApart(weight, heads.head_dim, heads.neighbours) for weight in weights]
        biases = [rows_apart(sides.vector(side), heads) for side in range(2)]
        return replace(sides, weights=[*turned, value], biases=[*biases, sides.vector(2)])
