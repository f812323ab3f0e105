"""A post-norm Transformer layer as in BERT (Devlin et al., arXiv 1810.04805), whose channels may be scaled
(edgellm_export.blocks.channels)."""

from __future__ import annotations

import onnx_ir as ir

from edgellm_export.architectures.contract import EncoderConfig, LayerNames, SourceMask
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.attention import multi_head
from edgellm_export.blocks.build import Build, node
from edgellm_export.blocks.norms import layer_norm


def layer(b: Build, c: EncoderConfig, names: LayerNames, x: ir.Value, mask: SourceMask) -> ir.Value:
    """Attention and MLP, each added to what it read and normed. x: a norm's output, whose channels may be scaled."""
    hidden = c.hidden_size
    y = self_attention(b, c, names, x, mask)
    y = blocks.linear(b, y, names.out, hidden, hidden, bias=True)
    x = add_norm(b, y, unscaled(b, x), names.attention_norm, hidden, c.eps)
    y = blocks.linear(b, x, names.up, c.intermediate_size, hidden, bias=True)
    y = blocks.activate(b, y, c.act, f"{names.up}.act")
    y = blocks.linear(b, y, names.down, hidden, c.intermediate_size, bias=True)
    return add_norm(b, y, unscaled(b, x), names.output_norm, hidden, c.eps)


def self_attention(b: Build, c: EncoderConfig, names: LayerNames, x: ir.Value, mask: SourceMask) -> ir.Value:
    """Every token attends to every token: [B, S, hidden]. The values' channels may be scaled: what comes out is a mean
    of them."""
    hidden, made, sides = c.hidden_size, f"{names.value}.attended", (names.query, names.key, names.value)
    weights = [b.tensors.take(f"{side}.weight", (hidden, hidden)) for side in sides]
    biases = [b.vector(f"{side}.bias", hidden) for side in sides]
    weights[2], biases[2] = b.channels.divided_rows(made, weights[2]), b.channels.divided(made, biases[2])
    qkv = [b.project(x, weight, bias, side) for side, weight, bias in zip(sides, weights, biases, strict=True)]
    place = node(names.value.rsplit(".", 1)[0])
    y = multi_head(b, *qkv, None, mask.keys, place=place, kept=b.attentions, num_heads=c.num_heads)
    return b.channels.made(y, made)


def add_norm(b: Build, x: ir.Value, residual: ir.Value, name: str, size: int, eps: float) -> ir.Value:
    """LayerNormalization of the sum. Not SkipLayerNormalization, which takes three times as long here."""
    return layer_norm(b, b.graph.op("Add", x, residual, name=f"{node(name)}/Add"), name, size, eps)


def unscaled(b: Build, x: ir.Value) -> ir.Value:
    """A norm's output with its channels as large as they were, for readers that are not linear layers."""
    found = b.channels.scale_of(x)
    if found is None:
        return x
    origin, scale = found
    factor = b.graph.array(f"{origin}.scale", scale.astype(b.activation))
    return b.graph.op("Mul", x, factor, name=f"{node(origin)}/Unscale")
