"""ELECTRA: BERT with embeddings that may be smaller than the model, and heads of its own."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.bert import bert_names, bert_places
from edgellm_export.architectures.encoder import MaskedHead, PostNormEncoder, TextHead, read_config
from edgellm_export.checkpoint.config import ConfigReader

PREFIX = "electra."
MASKED = MaskedHead(
    dense="generator_predictions.dense", norm="generator_predictions.LayerNorm", decoder="generator_lm_head",
    bias="generator_lm_head.bias", patterns=("generator_predictions.*", "generator_lm_head.*"), act="gelu",
)  # fmt: skip
TEXT = TextHead("classifier", "classifier.dense", "gelu", ("classifier.*",), "classifier.out_proj")


def parse(config: ConfigReader) -> PostNormEncoder:
    sizes = read_config(config)
    sizes = replace(sizes, embedding_size=config.integer("embedding_size"))
    return PostNormEncoder(sizes, bert_names(PREFIX, MASKED), bert_places(PREFIX), MASKED, TEXT)
