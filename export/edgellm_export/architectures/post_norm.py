"""A post-norm Transformer layer as in BERT (Devlin et al., arXiv 1810.04805), whose channels may be scaled
(edgellm_export.blocks.channels)."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgellm_export.architectures.contract import EncoderConfig, LayerNames, SourceMask
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build, node
from edgellm_export.blocks.encoder_attention import Scores, apart, self_attention
from edgellm_export.blocks.norms import BOTH, layer_norm, unscaled


def layer(
    b: Build, c: EncoderConfig, names: LayerNames, x: ir.Value, mask: SourceMask, bias: ir.Value | None = None
) -> ir.Value:
    """Attention and MLP, each added to what it read and normed. x: a norm's output, whose channels may be scaled.
    bias: [1, N, S, S], added to attention's scores."""
    hidden, scaled = c.hidden_size, not c.shared
    sides = apart(b, (names.query, names.key, names.value), hidden, hidden)
    y = self_attention(b, x, sides, mask.keys, Scores(c.num_heads, bias=bias), scaled=scaled)
    return after_attention(b, c, names, x, blocks.linear(b, y, names.out, hidden, hidden, bias=True))


def after_attention(b: Build, c: EncoderConfig, names: LayerNames, x: ir.Value, y: ir.Value) -> ir.Value:
    """The rest of a layer that read `x` and whose attention gave `y`."""
    hidden, scaled = c.hidden_size, not c.shared
    x = add_norm(b, y, unscaled(b, x), names.attention_norm, hidden, c.eps, scaled=scaled)
    y = mlp(b, c, names, x)
    return add_norm(b, y, unscaled(b, x), names.output_norm, hidden, c.eps, scaled=scaled)


def mlp(b: Build, c: EncoderConfig, names: LayerNames, x: ir.Value) -> ir.Value:
    """Up, an activation, and down."""
    y = blocks.linear(b, x, names.up, c.intermediate_size, c.hidden_size, bias=True)
    y = blocks.activate(b, y, c.act, f"{names.up}.act")
    return blocks.linear(b, y, names.down, c.hidden_size, c.intermediate_size, bias=True)


def add_norm(
    b: Build, x: ir.Value, residual: ir.Value, name: str, size: int, eps: float, *, scaled: bool = True,
    has: Sequence[str] = BOTH,
) -> ir.Value:  # fmt: skip
    """LayerNormalization of the sum. Not SkipLayerNormalization, which takes three times as long here."""
    total = b.graph.op("Add", x, residual, name=f"{node(name)}/Add")
    return layer_norm(b, total, name, size, eps, only_linear=scaled, has=has)
