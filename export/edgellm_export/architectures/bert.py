"""BERT, and sentence encoders made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgellm_export.architectures import encoder as e
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build
from edgellm_export.checkpoint.config import ConfigReader

HEADS: dict[e.HeadKind, Sequence[str]] = {
    "fill-mask": ("cls.predictions.*",),
    "text-classification": ("bert.pooler.*", "classifier.*"),
    "token-classification": ("classifier.*",),
    "question-answering": ("qa_outputs.*",),
}


def bert_names(prefix: str) -> e.Names:
    """Tensors as BERT and its closest relatives name them."""
    layer = f"{prefix}encoder.layer.{{}}"
    layers = e.LayerNames(
        query=f"{layer}.attention.self.query",
        key=f"{layer}.attention.self.key",
        value=f"{layer}.attention.self.value",
        out=f"{layer}.attention.output.dense",
        attention_norm=f"{layer}.attention.output.LayerNorm",
        up=f"{layer}.intermediate.dense",
        down=f"{layer}.output.dense",
        output_norm=f"{layer}.output.LayerNorm",
    )
    embeddings = f"{prefix}embeddings"
    return e.Names(
        prefix=prefix,
        words=f"{embeddings}.word_embeddings",
        positions=f"{embeddings}.position_embeddings",
        types=f"{embeddings}.token_type_embeddings",
        embedding_norm=f"{embeddings}.LayerNorm",
        projection=f"{prefix}embeddings_project",
        layer=layers,
    )


@dataclass(frozen=True)
class Bert:
    config: e.EncoderConfig
    names: e.Names

    def embed(self, b: Build, ids: ir.Value, types: ir.Value | None) -> ir.Value:
        c, n = self.config, self.names
        table = b.tensors.take(f"{n.types}.weight", (c.types, c.embedding_size)).rows(0, c.types)
        return e.embed(b, c, n, ids, types, table)

    def layer(self, b: Build, index: int, x: ir.Value, mask: e.Mask) -> ir.Value:
        return e.layer(b, self.config, self.names.layer.of(index), x, mask)

    def head(self, b: Build, x: ir.Value, kind: e.HeadKind, labels: int) -> ir.Value:
        hidden = self.config.hidden_size
        if kind == "fill-mask":
            return masked_lm(b, x, self.config, self.names)
        if kind == "text-classification":
            return e.classify(b, pooled(b, x, f"{self.names.prefix}pooler.dense", hidden), "classifier", labels, hidden)
        name = "qa_outputs" if kind == "question-answering" else "classifier"
        return e.classify(b, x, name, labels, hidden)

    def head_names(self, kind: e.HeadKind) -> Sequence[str]:
        return [name.replace("bert.", self.names.prefix) for name in HEADS[kind]]


def masked_lm(b: Build, x: ir.Value, config: e.EncoderConfig, names: e.Names) -> ir.Value:
    place = "cls.predictions"
    return e.masked_lm(
        b, x, config, names, dense=f"{place}.transform.dense", dense_norm=f"{place}.transform.LayerNorm",
        decoder=f"{place}.decoder", bias=f"{place}.bias", act=config.act,
    )  # fmt: skip


def pooled(b: Build, x: ir.Value, name: str, size: int) -> ir.Value:
    """The first token through a layer of its own: [B, size]."""
    first = e.first_token(b, x, "/pooler/Gather")
    return b.graph.op("Tanh", blocks.linear(b, first, name, size, size, bias=True), name="/pooler/Tanh")


def parse(config: ConfigReader) -> Bert:
    return Bert(e.read_config(config), bert_names("bert."))
