"""A post-norm Transformer layer as in BERT (Devlin et al., arXiv 1810.04805), whose channels may be moved
(edgellm_export.blocks.channels)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray, IntArray
from edgellm_export.architectures.contract import EncoderConfig, LayerNames, SourceMask
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.attention import multi_head
from edgellm_export.blocks.build import Build, node
from edgellm_export.checkpoint.tensors import PickedColumns, PickedRows


def layer(b: Build, c: EncoderConfig, names: LayerNames, x: ir.Value, mask: SourceMask) -> ir.Value:
    """Attention and MLP, each added to what it read and normed. x: a norm's output, whose channels may be moved."""
    hidden = c.hidden_size
    y = self_attention(b, c, names, x, mask)
    y = linear_onto(b, y, x, names.out, hidden, hidden)
    x = add_norm(b, y, unscaled(b, x), names.attention_norm, hidden, c.eps)
    y = feed_forward(b, c, names, x)
    return add_norm(b, y, unscaled(b, x), names.output_norm, hidden, c.eps)


def feed_forward(b: Build, c: EncoderConfig, names: LayerNames, x: ir.Value) -> ir.Value:
    """Up, activation and down, to be added to `unscaled` x. In parts where the channels between are split."""
    hidden, size = c.hidden_size, c.intermediate_size
    parts = b.channels.moves.splits.get(names.up)
    if parts is not None:
        return split_feed_forward(b, c, names, x, parts)
    y = blocks.linear(b, x, names.up, size, hidden, bias=True)
    y = blocks.activate(b, y, c.act, f"{names.up}.act")
    return linear_onto(b, y, x, names.down, hidden, size)


def split_feed_forward(
    b: Build, c: EncoderConfig, names: LayerNames, x: ir.Value, parts: Sequence[IntArray]
) -> ir.Value:
    hidden, size = c.hidden_size, c.intermediate_size
    up, up_bias = b.tensors.take(f"{names.up}.weight", (size, hidden)), b.vector(f"{names.up}.bias", size)
    down, down_bias = b.tensors.take(f"{names.down}.weight", (hidden, size)), bias_onto(b, x, names.down, hidden)
    products: list[ir.Value] = []
    for i, part in enumerate(parts):
        y = b.project(x, PickedRows(f"{up.name}.{i}", up, part), up_bias[part], f"{names.up}.{i}")
        y = blocks.activate(b, y, c.act, f"{names.up}.act.{i}")
        bias = None if products else down_bias
        products.append(b.project(y, PickedColumns(f"{down.name}.{i}", down, part), bias, f"{names.down}.{i}"))
    total = products[0]
    for i, product in enumerate(products[1:], 1):
        total = b.graph.op("Add", total, product, name=f"{node(names.down)}.{i}/Sum")
    return total


def linear_onto(b: Build, y: ir.Value, x: ir.Value, name: str, rows: int, columns: int) -> ir.Value:
    """A linear layer of y whose outputs are added to `unscaled` x."""
    return b.project(y, b.tensors.take(f"{name}.weight", (rows, columns)), bias_onto(b, x, name, rows), name)


def bias_onto(b: Build, x: ir.Value, name: str, rows: int) -> FloatArray:
    """The bias of a linear layer whose outputs are added to `unscaled` x, with what the channels of x lack."""
    return plus(b.vector(f"{name}.bias", rows), b.channels.shift_of(x))


def plus(bias: FloatArray, more: FloatArray | None) -> FloatArray:
    return bias if more is None else bias + more


def self_attention(b: Build, c: EncoderConfig, names: LayerNames, x: ir.Value, mask: SourceMask) -> ir.Value:
    """Every token attends to every token: [B, S, hidden]. The operator adds the biases of queries, keys and values. The
    values' channels may be moved: what comes out is a mean of them."""
    hidden, made, sides = c.hidden_size, f"{names.value}.attended", (names.query, names.key, names.value)
    weights = [b.tensors.take(f"{side}.weight", (hidden, hidden)) for side in sides]
    biases = [
        plus(b.vector(f"{side}.bias", hidden), b.channels.missing(x, weight))
        for side, weight in zip(sides, weights, strict=True)
    ]
    weights[2], biases[2] = b.channels.divided_rows(made, weights[2]), b.channels.moved(made, biases[2])
    query, key, value = (
        b.project(x, weight, None, side, bias_behind=True) for side, weight in zip(sides, weights, strict=True)
    )
    place = node(names.value.rsplit(".", 1)[0])
    bias = b.graph.array(f"{place}/bias", np.concatenate(biases).astype(b.activation))
    y = multi_head(b, query, key, value, bias, mask.keys, place=place, kept=b.attentions, num_heads=c.num_heads)
    return b.channels.made(y, made)


def add_norm(b: Build, x: ir.Value, residual: ir.Value, name: str, size: int, eps: float) -> ir.Value:
    """LayerNormalization of the sum. Not SkipLayerNormalization, which takes three times as long here."""
    return norm(b, b.graph.op("Add", x, residual, name=f"{node(name)}/Add"), name, size, eps)


def unscaled(b: Build, x: ir.Value) -> ir.Value:
    """A norm's output with its channels as large as they were, for readers that are not linear layers. It lacks what
    was subtracted from them."""
    found = b.channels.scale_of(x)
    if found is None:
        return x
    origin, scale = found
    factor = b.graph.array(f"{origin}.scale", scale.astype(b.activation))
    return b.graph.op("Mul", x, factor, name=f"{node(origin)}/Unscale")


def norm(b: Build, x: ir.Value, name: str, size: int, eps: float) -> ir.Value:
    """LayerNormalization with the checkpoint's `name`.weight and .bias."""
    weight, shift = _norm_vectors(b, name, size)
    y = b.graph.op("LayerNormalization", x, weight, shift, name=f"{node(name)}/LayerNorm", axis=-1, epsilon=eps)
    return b.channels.made(y, name)


def _norm_vectors(b: Build, name: str, size: int) -> Sequence[ir.Value]:
    weight = b.channels.divided(name, b.vector(f"{name}.weight", size))
    bias = b.channels.moved(name, b.vector(f"{name}.bias", size))
    return [
        b.graph.array(f"{name}.{part}", vector.astype(b.activation))
        for part, vector in (("weight", weight), ("bias", bias))
    ]
