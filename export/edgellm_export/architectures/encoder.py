"""What all encoder-only families share: a post-norm Transformer as in BERT (Devlin et al., arXiv 1810.04805).

A family's file gives the config, the names of its tensors, and the lines in which it differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray, IntArray
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build, node
from edgellm_export.checkpoint.config import ConfigReader
from edgellm_export.checkpoint.tensors import PickedColumns, PickedRows
from edgellm_export.quantize import scheme_for

HeadKind = Literal["fill-mask", "text-classification", "token-classification", "question-answering"]


@dataclass(frozen=True)
class EncoderConfig:
    """`positions`: rows of the position table. `first_position`: the row of a sequence's first token; where it is not
    0, padding has the row before. `embedding_size`: of the tables, projected where it is not `hidden_size`. `types`: 0
    where the model has no token types."""

    vocab_size: int
    hidden_size: int
    embedding_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    positions: int
    first_position: int
    types: int
    act: str
    eps: float
    tied_embedding: bool

    @property
    def context_length(self) -> int:
        return self.positions - self.first_position


@dataclass(frozen=True)
class LayerNames:
    """Of a layer's tensors, `{}` being its number."""

    query: str
    key: str
    value: str
    out: str
    attention_norm: str
    up: str
    down: str
    output_norm: str

    def of(self, index: int) -> LayerNames:
        return LayerNames(*(getattr(self, field).format(index) for field in self.__dataclass_fields__))


@dataclass(frozen=True)
class Names:
    """Of the family's tensors. `prefix`: what a checkpoint without a head leaves out of all of them."""

    prefix: str
    words: str
    positions: str
    types: str
    embedding_norm: str
    projection: str
    layer: LayerNames


@dataclass(frozen=True)
class Mask:
    """Which tokens may be seen. keys: [B, S] int32, ones for tokens, then zeros for padding."""

    keys: ir.Value


class EncoderFamily(Protocol):
    """An encoder-only family with its config: adds its nodes piece by piece, so that pieces can also run on their
    own."""

    @property
    def config(self) -> EncoderConfig: ...

    @property
    def names(self) -> Names: ...

    def embed(self, b: Build, ids: ir.Value, types: ir.Value | None) -> ir.Value:
        """ids, types: [B, S] int64. Returns the states [B, S, hidden]."""

    def layer(self, b: Build, index: int, x: ir.Value, mask: Mask) -> ir.Value:
        """One transformer layer, [B, S, hidden] to the same."""

    def head(self, b: Build, x: ir.Value, kind: HeadKind, labels: int) -> ir.Value:
        """[B, S, hidden] to logits: [B, S, vocab], [B, labels], [B, S, labels] or, for the start and the end of an
        answer, [B, S, 2]."""

    def head_names(self, kind: HeadKind) -> Sequence[str]:
        """Patterns of the tensors that `head` may take: those of other heads are left alone."""


def read_config(config: ConfigReader, *, first_position: int = 0, types: bool = True) -> EncoderConfig:
    """config.json as BERT's relatives name things."""
    check_kind(config)
    hidden = config.integer("hidden_size")
    heads = config.integer("num_attention_heads")
    config.require(hidden % heads == 0, f"hidden_size is {hidden}, expected a multiple of num_attention_heads, {heads}")
    positions = config.integer("max_position_embeddings", minimum=first_position + 1)
    return EncoderConfig(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        embedding_size=hidden,
        num_layers=config.layers("num_hidden_layers"),
        num_heads=heads,
        intermediate_size=config.integer("intermediate_size"),
        positions=positions,
        first_position=first_position,
        types=config.integer("type_vocab_size", 2) if types else 0,
        act=config.choice("hidden_act", "gelu", list(blocks.ACTIVATIONS)),
        eps=config.number("layer_norm_eps", 1e-12),
        tied_embedding=config.flag("tie_word_embeddings", True),
    )


def check_kind(config: ConfigReader) -> None:
    """Refuse what makes another model of the same tensors."""
    config.must_be("is_decoder", False)
    config.must_be("add_cross_attention", False)
    config.must_be("position_embedding_type", "absolute")


def embed(
    b: Build, c: EncoderConfig, n: Names, ids: ir.Value, types: ir.Value | None, type_table: FloatArray | None,
    pad: int | None = None,
) -> ir.Value:  # fmt: skip
    """Words, positions and types added, normed and, where the tables are smaller than the model, projected.

    `type_table`: [types, embedding_size], None where there are no types. `pad`: the id whose tokens count for no
    position; None where positions are simply counted.
    """
    words = blocks.embedding(b, ids, n.words, c.vocab_size, c.embedding_size)
    x = b.graph.op("Add", words, _positions(b, c, n, ids, pad), name=f"{node(n.positions)}/Add")
    if types is not None and type_table is not None:
        table = b.graph.array(f"{n.types}.weight", type_table.astype(b.activation))
        x = b.graph.op(
            "Add", x, b.graph.op("Gather", table, types, axis=0, name=f"{node(n.types)}/Gather"),
            name=f"{node(n.types)}/Add",
        )  # fmt: skip
    x = norm(b, x, n.embedding_norm, c.embedding_size, c.eps)
    if c.embedding_size != c.hidden_size:
        x = blocks.linear(b, x, n.projection, c.hidden_size, c.embedding_size, bias=True)
    return x


def _positions(b: Build, c: EncoderConfig, n: Names, ids: ir.Value, pad: int | None) -> ir.Value:
    g, place = b.graph, node(n.positions)
    weight = b.tensors.take(f"{n.positions}.weight", (c.positions, c.embedding_size))
    table = g.array(f"{n.positions}.weight", weight.rows(0, c.positions).astype(b.activation))
    if pad is None:
        length = g.op("Shape", ids, start=1, end=2, name=f"{place}/Shape")
        return g.op("Slice", table, g.ints(0), length, g.ints(0), name=f"{place}/Slice")
    is_pad = g.op("Equal", ids, g.constant(f"{place}/pad", np.array(pad, np.int64)), name=f"{place}/Equal")
    token = g.op("Cast", g.op("Not", is_pad, name=f"{place}/Not"), to=int(ir.DataType.INT64), name=f"{place}/Cast")
    counts = g.op("CumSum", token, g.constant("/constants/1", np.array(1, np.int64)), name=f"{place}/CumSum")
    counted = g.op("Mul", counts, token, name=f"{place}/Mul")
    rows = g.op("Add", counted, g.ints(c.first_position - 1), name=f"{place}/Rows")
    return g.op("Gather", table, rows, axis=0, name=f"{place}/Gather")


def layer(b: Build, c: EncoderConfig, names: LayerNames, x: ir.Value, mask: Mask) -> ir.Value:
    """Attention and MLP, each added to what it read and normed. x: a norm's output, whose channels may be moved."""
    hidden = c.hidden_size
    y = attention(b, c, names, x, mask)
    y = linear_onto(b, y, x, names.out, hidden, hidden)
    x = add_norm(b, y, unscaled(b, x), names.attention_norm, hidden, c.eps)
    y = feed_forward(b, c, names, x)
    return add_norm(b, y, unscaled(b, x), names.output_norm, hidden, c.eps)


def feed_forward(b: Build, c: EncoderConfig, names: LayerNames, x: ir.Value) -> ir.Value:
    """Up, activation and down, to be added to `unscaled` x. In parts where the channels between are split."""
    hidden, size = c.hidden_size, c.intermediate_size
    parts = b.channels.splits.get(names.up)
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


def attention(b: Build, c: EncoderConfig, names: LayerNames, x: ir.Value, mask: Mask) -> ir.Value:
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
    y = blocks.multi_head_attention(
        b, query, key, value, bias, mask.keys, place=place, kept=b.attentions, num_heads=c.num_heads
    )
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


def first_token(b: Build, x: ir.Value, name: str) -> ir.Value:
    """[B, S, hidden] to [B, hidden] of the first token."""
    return b.graph.op("Gather", x, b.graph.constant("/constants/0", np.array(0, np.int64)), axis=1, name=name)


def classify(b: Build, x: ir.Value, name: str, labels: int, size: int) -> ir.Value:
    """A head's last layer, in float32: it is small, and decides."""
    weight = b.tensors.take(f"{name}.weight", (labels, size))
    return scheme_for("fp32", "cpu").linear(b.graph, x, weight, b.vector(f"{name}.bias", labels), node(name))


def masked_lm(
    b: Build, x: ir.Value, c: EncoderConfig, n: Names, *, dense: str, dense_norm: str, decoder: str, bias: str, act: str
) -> ir.Value:  # fmt: skip
    """Transformed states times the embedding of words: [B, S, vocab]."""
    size = c.embedding_size
    x = blocks.activate(b, blocks.linear(b, x, dense, size, c.hidden_size, bias=True), act, f"{dense}.act")
    x = norm(b, x, dense_norm, size, c.eps)
    name = n.words if c.tied_embedding else decoder
    weight = b.tensors.take(f"{name}.weight", (c.vocab_size, size))
    return b.project(x, weight, b.vector(bias, c.vocab_size), decoder, outer=True)
