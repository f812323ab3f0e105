"""Encoders with rotary positions and gated MLPs: ModernBERT, Nomic's BERT, GTE. Norms stand before each block
(`pre_norm`) or behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgellm_export.architectures.contract import EncoderConfig, SourceMask
from edgellm_export.architectures.encoder import PostNormEncoder
from edgellm_export.architectures.post_norm import add_norm
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build, node
from edgellm_export.blocks.encoder_attention import Scores, packed, self_attention
from edgellm_export.blocks.near import near
from edgellm_export.blocks.norms import layer_norm, unscaled
from edgellm_export.blocks.rope import StaticRope, read_rope, rope_request
from edgellm_export.checkpoint.config import ConfigReader
from edgellm_export.checkpoint.tensors import LazyTensor, RowSlice

PLAIN = {"default": "default"}  # the kinds of rope that encoders have


@dataclass(frozen=True)
class GatedNames:
    """A layer's tensors, `{}` being its number. `halves`: one matrix that has gate and up on top of each other, or up
    and gate where it is not `gate_first`; else there are `gate` and `up`. `biased`: which of these layers have a bias.
    """

    qkv: str
    out: str
    attention_norm: str
    down: str
    output_norm: str
    halves: str = ""
    gate: str = ""
    up: str = ""
    gate_first: bool = True
    biased: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Turning:
    """A layer's rope, and how far its tokens see; None: to the ends."""

    rope: StaticRope
    reach: int | None = None


@dataclass(frozen=True)
class RopeEncoder(PostNormEncoder):
    """`final`: the norm behind the last layer, if any. `first_normed`: the first layer has a norm, too, before its
    attention."""

    layers: GatedNames = GatedNames("", "", "", "", "")
    turning: Sequence[Turning] = ()
    pre_norm: bool = False
    first_normed: bool = True
    final: str = ""

    @property
    def adds(self) -> bool:
        return self.pre_norm

    def made_by(self, index: int) -> str | None:
        if self.pre_norm:
            return None
        return self.layers.output_norm.format(index - 1) if index else self.places.embedding_norm

    def layer(self, b: Build, index: int, x: ir.Value, mask: SourceMask) -> ir.Value:
        c, n = self.config, self.layers
        first, second = (name.format(index) for name in (n.attention_norm, n.output_norm))
        if not self.pre_norm:
            y = self._attention(b, index, x, mask)
            x = add_norm(b, y, unscaled(b, x), first, c.hidden_size, c.eps, has=c.norm_parts)
            y = self._mlp(b, index, x)
            return add_norm(b, y, unscaled(b, x), second, c.hidden_size, c.eps, has=c.norm_parts)
        y = x if index == 0 and not self.first_normed else self._norm(b, x, first)
        x = b.graph.op("Add", self._attention(b, index, y, mask), x, name=f"{node(first)}/Add")
        return b.graph.op("Add", self._mlp(b, index, self._norm(b, x, second)), x, name=f"{node(second)}/Add")

    def final_norm(self, b: Build, x: ir.Value) -> ir.Value:
        return self._norm(b, x, self.final, only_linear=False) if self.final else x

    def _norm(self, b: Build, x: ir.Value, name: str, *, only_linear: bool = True) -> ir.Value:
        c = self.config
        return layer_norm(b, x, name, c.hidden_size, c.eps, only_linear=only_linear, has=c.norm_parts)

    def _attention(self, b: Build, index: int, x: ir.Value, mask: SourceMask) -> ir.Value:
        c, n, turning = self.config, self.layers, self.turning[index]
        sides = packed(b, n.qkv.format(index), c.hidden_size, c.hidden_size, bias="qkv" in n.biased)
        bias = None if turning.reach is None else near(b, mask.keys, turning.reach)
        y = self_attention(b, x, sides, mask.keys, Scores(c.num_heads, None, bias, turning.rope, c.positions))
        return blocks.linear(b, y, n.out.format(index), c.hidden_size, c.hidden_size, bias="out" in n.biased)

    def _mlp(self, b: Build, index: int, x: ir.Value) -> ir.Value:
        c, n = self.config, self.layers
        (gate, gate_name), (up, up_name) = self._halves(b, index)
        vectors = [b.vector(f"{n.halves.format(index)}.bias", 2 * c.intermediate_size)] if "halves" in n.biased else []
        sizes = [vectors[0][: c.intermediate_size], vectors[0][c.intermediate_size :]] if vectors else [None, None]
        biases = sizes if n.gate_first else sizes[::-1]
        name = n.down.format(index)
        y = blocks.gated_by(b, x, (gate, biases[0], gate_name), (up, biases[1], up_name), name, c.act)
        return blocks.linear(b, y, name, c.hidden_size, c.intermediate_size, bias="down" in n.biased)

    def _halves(self, b: Build, index: int) -> list[tuple[LazyTensor, str]]:
        """Gate and up, each with a name."""
        c, n = self.config, self.layers
        size, hidden = c.intermediate_size, c.hidden_size
        if not n.halves:
            names = [n.gate.format(index), n.up.format(index)]
            return [(b.tensors.take(f"{name}.weight", (size, hidden)), name) for name in names]
        whole, place = b.tensors.take(f"{n.halves.format(index)}.weight", (2 * size, hidden)), n.halves.format(index)
        parts = [RowSlice(f"{place}.{i}.weight", whole, i * size, (i + 1) * size) for i in range(2)]
        named = [(part, f"{place}.{i}") for i, part in enumerate(parts)]
        return [*named] if n.gate_first else [*named[::-1]]


def one_rope(config: ConfigReader, sizes: EncoderConfig, theta: float) -> list[Turning]:
    """The same rope in all layers, which see everything."""
    head_dim = sizes.hidden_size // sizes.num_heads
    rope = read_rope(config, rope_request(config, head_dim=head_dim, positions=sizes.positions, theta=theta), PLAIN)
    assert isinstance(rope, StaticRope)
    return [Turning(rope)] * sizes.num_layers
