"""DistilBERT: BERT without token types, and other names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgellm_export.architectures import encoder as e
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build
from edgellm_export.checkpoint.config import ConfigReader

HEADS: dict[e.HeadKind, Sequence[str]] = {
    "fill-mask": ("vocab_transform.*", "vocab_layer_norm.*", "vocab_projector.*"),
    "text-classification": ("pre_classifier.*", "classifier.*"),
    "token-classification": ("classifier.*",),
    "question-answering": ("qa_outputs.*",),
}
LAYER = "distilbert.transformer.layer.{}"
NAMES = e.Names(
    prefix="distilbert.",
    words="distilbert.embeddings.word_embeddings",
    positions="distilbert.embeddings.position_embeddings",
    types="",
    embedding_norm="distilbert.embeddings.LayerNorm",
    projection="",
    layer=e.LayerNames(
        query=f"{LAYER}.attention.q_lin",
        key=f"{LAYER}.attention.k_lin",
        value=f"{LAYER}.attention.v_lin",
        out=f"{LAYER}.attention.out_lin",
        attention_norm=f"{LAYER}.sa_layer_norm",
        up=f"{LAYER}.ffn.lin1",
        down=f"{LAYER}.ffn.lin2",
        output_norm=f"{LAYER}.output_layer_norm",
    ),
)


@dataclass(frozen=True)
class DistilBert:
    config: e.EncoderConfig
    names: e.Names = NAMES

    def embed(self, b: Build, ids: ir.Value, types: ir.Value | None) -> ir.Value:
        return e.embed(b, self.config, self.names, ids, None, None)

    def layer(self, b: Build, index: int, x: ir.Value, mask: e.Mask) -> ir.Value:
        return e.layer(b, self.config, self.names.layer.of(index), x, mask)

    def head(self, b: Build, x: ir.Value, kind: e.HeadKind, labels: int) -> ir.Value:
        c, hidden = self.config, self.config.hidden_size
        if kind == "fill-mask":
            return e.masked_lm(
                b, x, c, self.names, dense="vocab_transform", dense_norm="vocab_layer_norm",
                decoder="vocab_projector", bias="vocab_projector.bias", act=c.act,
            )  # fmt: skip
        if kind == "text-classification":
            first = e.first_token(b, x, "/pre_classifier/Gather")
            y = blocks.linear(b, first, "pre_classifier", hidden, hidden, bias=True)
            y = blocks.activate(b, y, "relu", "pre_classifier.act")
            return e.classify(b, y, "classifier", labels, hidden)
        name = "qa_outputs" if kind == "question-answering" else "classifier"
        return e.classify(b, x, name, labels, hidden)

    def head_names(self, kind: e.HeadKind) -> Sequence[str]:
        return HEADS[kind]


def parse(config: ConfigReader) -> DistilBert:
    hidden, heads = config.integer("dim"), config.integer("n_heads")
    config.require(hidden % heads == 0, f"dim is {hidden}, expected a multiple of n_heads, {heads}")
    return DistilBert(
        e.EncoderConfig(
            vocab_size=config.integer("vocab_size"),
            hidden_size=hidden,
            embedding_size=hidden,
            num_layers=config.layers("n_layers"),
            num_heads=heads,
            intermediate_size=config.integer("hidden_dim"),
            positions=config.integer("max_position_embeddings"),
            first_position=0,
            types=0,
            act=config.choice("activation", "gelu", list(blocks.ACTIVATIONS)),
            eps=1e-12,
            tied_embedding=config.flag("tie_word_embeddings", True),
        )
    )
