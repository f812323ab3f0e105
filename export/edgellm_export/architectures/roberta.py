"""RoBERTa, CamemBERT and XLM-RoBERTa: BERT whose positions count tokens only, from behind the padding's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgellm_export.architectures import bert
from edgellm_export.architectures import encoder as e
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build
from edgellm_export.checkpoint.config import ConfigReader

HEADS: dict[e.HeadKind, Sequence[str]] = {
    "fill-mask": ("lm_head.*",),
    "text-classification": ("classifier.*",),
    "token-classification": ("classifier.*",),
    "question-answering": ("qa_outputs.*",),
}


@dataclass(frozen=True)
class Roberta(bert.Bert):
    pad: int

    def embed(self, b: Build, ids: ir.Value, types: ir.Value | None) -> ir.Value:
        c, n = self.config, self.names
        table = b.tensors.take(f"{n.types}.weight", (c.types, c.hidden_size)).rows(0, c.types)
        return e.embed(b, c, n, ids, types, table, self.pad)

    def head(self, b: Build, x: ir.Value, kind: e.HeadKind, labels: int) -> ir.Value:
        c, hidden = self.config, self.config.hidden_size
        if kind == "fill-mask":
            return e.masked_lm(
                b, x, c, self.names, dense="lm_head.dense", dense_norm="lm_head.layer_norm",
                decoder="lm_head.decoder", bias="lm_head.bias", act="gelu",
            )  # fmt: skip
        if kind == "text-classification":
            first = e.first_token(b, x, "/classifier/Gather")
            y = blocks.linear(b, first, "classifier.dense", hidden, hidden, bias=True)
            y = b.graph.op("Tanh", y, name="/classifier/Tanh")
            return e.classify(b, y, "classifier.out_proj", labels, hidden)
        return super().head(b, x, kind, labels)

    def head_names(self, kind: e.HeadKind) -> Sequence[str]:
        return HEADS[kind]


def parse(config: ConfigReader) -> Roberta:
    pad = config.integer("pad_token_id", 1, minimum=0)
    return Roberta(e.read_config(config, first_position=pad + 1), bert.bert_names("roberta."), pad)
