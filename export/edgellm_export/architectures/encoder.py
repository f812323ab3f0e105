"""What all encoder-only families share: BERT (Devlin et al., arXiv 1810.04805) with heads for several tasks.

A family's file gives the config, the names of its tensors, and the lines in which it differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.architectures import post_norm
from edgellm_export.architectures.contract import EncoderConfig, HeadKind, LayerNames, SourceMask
from edgellm_export.architectures.names import Names, head_differs
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build, node
from edgellm_export.blocks.norms import layer_norm
from edgellm_export.checkpoint.config import MAX_HEAD_DIM, MAX_HEADS, ConfigReader
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.quantize import scheme_for

UNUSED = ("*.position_ids", "*token_type_ids")  # buffers that older checkpoints hold
CLASSIFIER, ANSWER = "classifier", "qa_outputs"


@dataclass(frozen=True)
class MaskedHead:
    """States go through `dense`, `act` (None: the model's) and `norm`, and are compared with the embedding, or with
    `decoder` where it is not tied. `bias`: a full name. `patterns`: of the head's tensors."""

    dense: str
    norm: str
    decoder: str
    bias: str
    patterns: tuple[str, ...]
    act: str | None = None


@dataclass(frozen=True)
class TextHead:
    """The first token goes through `dense`, `act` and `out`, which has a row per label. `place`: of the nodes between.
    `patterns`: of the head's tensors."""

    place: str
    dense: str
    act: str
    patterns: tuple[str, ...]
    out: str = CLASSIFIER


@dataclass(frozen=True)
class EncoderNames:
    """What an encoder family calls its tensors besides those in `Names`; empty: there are none."""

    positions: str
    types: str
    embedding_norm: str
    projection: str
    layer: LayerNames


@dataclass(frozen=True)
class PostNormEncoder:
    """`pad`: the id whose tokens count for no position; None where positions are simply counted."""

    config: EncoderConfig
    names: Names
    places: EncoderNames
    masked: MaskedHead
    text: TextHead
    pad: int | None = None

    @property
    def tied(self) -> bool:
        return self.config.tied_embedding

    @property
    def defaults(self) -> Mapping[str, FloatArray]:
        return {}

    def fitted(self, tensors: Mapping[str, LazyTensor]) -> Self:
        if not self.tied or not head_differs(tensors, self.names):
            return self
        return replace(self, config=replace(self.config, tied_embedding=False))

    @property
    def adds(self) -> bool:
        return False

    @property
    def classifiers(self) -> Sequence[str]:
        return (CLASSIFIER, self.text.out)

    @property
    def projects(self) -> bool:
        """Whether a linear layer stands between the embeddings and the first layer."""
        return self.config.embedding_size != self.config.hidden_size

    @property
    def head_size(self) -> int:
        """Of the vectors of words that the states are compared with."""
        return self.config.embedding_size

    def made_by(self, index: int) -> str | None:
        if self.config.shared or (index == 0 and self.projects):
            return None
        return self.layer_names(index - 1).output_norm if index else self.places.embedding_norm

    def layer_names(self, index: int) -> LayerNames:
        return self.places.layer.of(index)

    def embed(self, b: Build, ids: ir.Value, types: ir.Value | None) -> ir.Value:
        """Words, positions and types added, normed and, where the tables are smaller than the model, projected."""
        c, n = self.config, self.places
        x = self.words(b, ids)
        if n.positions:
            x = b.graph.op("Add", x, _positions(b, c, n.positions, ids, self.pad), name=f"{node(n.positions)}/Add")
        if types is not None:
            table = b.graph.array(f"{n.types}.weight", self.type_table(b).astype(b.activation))
            kind = b.graph.op("Gather", table, types, axis=0, name=f"{node(n.types)}/Gather")
            x = b.graph.op("Add", x, kind, name=f"{node(n.types)}/Add")
        if n.embedding_norm:
            x = layer_norm(
                b,
                x,
                n.embedding_norm,
                c.embedding_size,
                c.eps,
                only_linear=self.made_by(0) is not None,
                has=c.norm_parts,
            )
        if self.projects:
            x = blocks.linear(b, x, n.projection, c.hidden_size, c.embedding_size, bias=True)
        return x

    def words(self, b: Build, ids: ir.Value) -> ir.Value:
        """The embeddings of the ids: [B, S, embedding_size]."""
        c = self.config
        return blocks.embedding(b, ids, self.names.embedding, c.vocab_size, c.embedding_size)

    def type_table(self, b: Build) -> FloatArray:
        """What is added for each type: [types, embedding_size]."""
        c = self.config
        return b.tensors.take(f"{self.places.types}.weight", (c.types, c.embedding_size)).rows(0, c.types)

    def layer(self, b: Build, index: int, x: ir.Value, mask: SourceMask) -> ir.Value:
        return post_norm.layer(b, self.config, self.layer_names(index), x, mask, self.bias(b, mask))

    def bias(self, b: Build, mask: SourceMask) -> ir.Value | None:
        """What is added to attention's scores, for all layers: [1, N, S, S]."""
        return None

    def final_norm(self, b: Build, x: ir.Value) -> ir.Value:
        return x

    def head(self, b: Build, x: ir.Value, kind: HeadKind, labels: int, mask: ir.Value) -> ir.Value:
        if kind == "fill-mask":
            return self._words(b, x)
        if kind == "text-classification":
            return classify(b, self._text(b, x), self.text.out, labels, self.config.hidden_size)
        name = ANSWER if kind == "question-answering" else CLASSIFIER
        return classify(b, x, name, labels, self.config.hidden_size)

    def head_patterns(self, kind: HeadKind) -> Sequence[str]:
        if kind == "fill-mask":
            return self.masked.patterns
        if kind == "text-classification":
            return self.text.patterns
        return (f"{ANSWER if kind == 'question-answering' else CLASSIFIER}.*",)

    def _words(self, b: Build, x: ir.Value) -> ir.Value:
        """Transformed states times the embedding of words: [B, S, vocab]."""
        c, head, size = self.config, self.masked, self.head_size
        x = blocks.linear(b, x, head.dense, size, c.hidden_size, bias=True)
        x = layer_norm(b, blocks.activate(b, x, head.act or c.act, f"{head.dense}.act"), head.norm, size, c.eps)
        weight = b.tensors.take(
            f"{self.names.embedding if c.tied_embedding else head.decoder}.weight", (c.vocab_size, size)
        )
        return b.project(x, weight, b.vector(head.bias, c.vocab_size), head.decoder, outer=True)

    def _text(self, b: Build, x: ir.Value) -> ir.Value:
        """The first token through a layer of its own: [B, hidden]."""
        hidden, place = self.config.hidden_size, node(self.text.place)
        first = b.graph.op("Gather", x, b.graph.scalar(0), axis=1, name=f"{place}/Gather")
        y = blocks.linear(b, first, self.text.dense, hidden, hidden, bias=True)
        if self.text.act == "tanh":
            return b.graph.op("Tanh", y, name=f"{place}/Tanh")
        return blocks.activate(b, y, self.text.act, f"{self.text.place}.act")


@dataclass(frozen=True)
class ConfigKeys:
    """What config.json calls the sizes."""

    hidden_size: str = "hidden_size"
    heads: str = "num_attention_heads"
    layers: str = "num_hidden_layers"
    intermediate_size: str = "intermediate_size"
    act: str = "hidden_act"
    positions: str = "max_position_embeddings"


BERT_KEYS = ConfigKeys()


def read_config(
    config: ConfigReader, keys: ConfigKeys = BERT_KEYS, *, first_position: int = 0, has_types: bool = True,
    eps: float | None = None, kind_of_positions: str = "absolute",
) -> EncoderConfig:  # fmt: skip
    """The sizes in config.json. Refuses what makes another model of the same tensors. `eps`: of norms, where it is not
    for the config to say."""
    config.must_be("is_decoder", False)
    config.must_be("is_causal", False)
    config.must_be("add_cross_attention", False)
    config.must_be("position_embedding_type", kind_of_positions)
    hidden, heads = config.integer(keys.hidden_size), config.integer(keys.heads, maximum=MAX_HEADS)
    large = f"{keys.hidden_size} is {hidden} for {heads} heads, too large for a head"
    config.require(hidden // heads <= MAX_HEAD_DIM, large)
    hidden = min(hidden, heads * MAX_HEAD_DIM)
    multiple = f"{keys.hidden_size} is {hidden}, expected a multiple of {keys.heads}, {heads}"
    config.require(hidden % heads == 0, multiple)
    positions = config.integer(keys.positions, minimum=first_position + 1)
    return EncoderConfig(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        embedding_size=hidden,
        num_layers=config.layers(keys.layers),
        num_heads=heads,
        intermediate_size=config.integer(keys.intermediate_size),
        positions=positions,
        first_position=first_position,
        types=config.integer("type_vocab_size") if has_types else 0,
        act=config.choice(keys.act, list(blocks.ACTIVATIONS)),
        eps=config.number("layer_norm_eps") if eps is None else eps,
        tied_embedding=config.flag("tie_word_embeddings"),
    )


def _positions(b: Build, c: EncoderConfig, name: str, ids: ir.Value, pad: int | None) -> ir.Value:
    g, place = b.graph, node(name)
    weight = b.tensors.take(f"{name}.weight", (c.positions, c.embedding_size))
    table = g.array(f"{name}.weight", weight.rows(0, c.positions).astype(b.activation))
    if pad is None:
        length = g.op("Shape", ids, start=1, end=2, name=f"{place}/Shape")
        return g.op("Slice", table, g.ints(0), length, g.ints(0), name=f"{place}/Slice")
    is_pad = g.op("Equal", ids, g.constant(f"{place}/pad", np.array(pad, np.int64)), name=f"{place}/Equal")
    token = g.op("Cast", g.op("Not", is_pad, name=f"{place}/Not"), to=int(ir.DataType.INT64), name=f"{place}/Cast")
    counts = g.op("CumSum", token, g.scalar(1), name=f"{place}/CumSum")
    counted = g.op("Mul", counts, token, name=f"{place}/Mul")
    rows = g.op("Add", counted, g.ints(c.first_position - 1), name=f"{place}/Rows")
    return g.op("Gather", table, rows, axis=0, name=f"{place}/Gather")


def classify(b: Build, x: ir.Value, name: str, labels: int, size: int) -> ir.Value:
    """A head's last layer, in float32: it is small, and decides."""
    weight = b.tensors.take(f"{name}.weight", (labels, size))
    return scheme_for("fp32", "cpu").linear(b.graph, x, weight, b.vector(f"{name}.bias", labels), node(name))
