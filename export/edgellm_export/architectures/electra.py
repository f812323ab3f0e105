"""ELECTRA: BERT with embeddings that may be smaller than the model, and heads of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgellm_export.architectures import bert
from edgellm_export.architectures import encoder as e
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build
from edgellm_export.checkpoint.config import ConfigReader

HEADS: dict[e.HeadKind, Sequence[str]] = {
    "fill-mask": ("generator_predictions.*", "generator_lm_head.*"),
    "text-classification": ("classifier.*",),
    "token-classification": ("classifier.*",),
    "question-answering": ("qa_outputs.*",),
}


@dataclass(frozen=True)
class Electra(bert.Bert):
    def head(self, b: Build, x: ir.Value, kind: e.HeadKind, labels: int) -> ir.Value:
        c, hidden = self.config, self.config.hidden_size
        if kind == "fill-mask":
            place = "generator_predictions"
            return e.masked_lm(
                b, x, c, self.names, dense=f"{place}.dense", dense_norm=f"{place}.LayerNorm",
                decoder="generator_lm_head", bias="generator_lm_head.bias", act="gelu",
            )  # fmt: skip
        if kind == "text-classification":
            first = e.first_token(b, x, "/classifier/Gather")
            y = blocks.linear(b, first, "classifier.dense", hidden, hidden, bias=True)
            y = blocks.activate(b, y, "gelu", "classifier.act")
            return e.classify(b, y, "classifier.out_proj", labels, hidden)
        return super().head(b, x, kind, labels)

    def head_names(self, kind: e.HeadKind) -> Sequence[str]:
        return HEADS[kind]


def parse(config: ConfigReader) -> Electra:
    sizes = e.read_config(config)
    sizes = replace(sizes, embedding_size=config.integer("embedding_size", sizes.hidden_size))
    return Electra(sizes, bert.bert_names("electra."))
