"""DistilBERT: BERT without token types, and other names."""

from __future__ import annotations

from edgellm_export.architectures.bert import OLDER
from edgellm_export.architectures.contract import LayerNames
from edgellm_export.architectures.encoder import (
    UNUSED,
    ConfigKeys,
    EncoderNames,
    MaskedHead,
    PostNormEncoder,
    TextHead,
    read_config,
)
from edgellm_export.architectures.names import Names
from edgellm_export.checkpoint.config import ConfigReader

MASKED = MaskedHead(
    dense="vocab_transform", norm="vocab_layer_norm", decoder="vocab_projector", bias="vocab_projector.bias",
    patterns=("vocab_transform.*", "vocab_layer_norm.*", "vocab_projector.*"),
)  # fmt: skip
EPSILON = 1e-12
TEXT = TextHead("pre_classifier", "pre_classifier", "relu", ("pre_classifier.*", "classifier.*"))
KEYS = ConfigKeys(
    hidden_size="dim", heads="n_heads", layers="n_layers", intermediate_size="hidden_dim", act="activation"
)
NAMES = Names("distilbert.", "distilbert.embeddings.word_embeddings", MASKED.decoder, older=OLDER, unused=UNUSED)
PLACES = EncoderNames(
    positions="distilbert.embeddings.position_embeddings",
    types="",
    embedding_norm="distilbert.embeddings.LayerNorm",
    projection="",
    layer=LayerNames.below(
        "distilbert.transformer.layer.{}",
        query="attention.q_lin", key="attention.k_lin", value="attention.v_lin", out="attention.out_lin",
        attention_norm="sa_layer_norm", up="ffn.lin1", down="ffn.lin2", output_norm="output_layer_norm",
    ),
)  # fmt: skip


def parse(config: ConfigReader) -> PostNormEncoder:
    sizes = read_config(config, KEYS, has_types=False, eps=EPSILON)
    return PostNormEncoder(sizes, NAMES, PLACES, MASKED, TEXT)
