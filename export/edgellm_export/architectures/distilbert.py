"""DistilBERT: BERT without token types, and other names."""

from __future__ import annotations

from edgellm_export.architectures.bert import OLDER
from edgellm_export.architectures.contract import EncoderConfig, LayerNames
from edgellm_export.architectures.encoder import UNUSED, EncoderNames, MaskedHead, PostNormEncoder, TextHead
from edgellm_export.architectures.names import Names
from edgellm_export.blocks import layers as blocks
from edgellm_export.checkpoint.config import ConfigReader

LAYER = "distilbert.transformer.layer.{}"
MASKED = MaskedHead(
    dense="vocab_transform",
    norm="vocab_layer_norm",
    decoder="vocab_projector",
    bias="vocab_projector.bias",
    patterns=("vocab_transform.*", "vocab_layer_norm.*", "vocab_projector.*"),
)
TEXT = TextHead("pre_classifier", "pre_classifier", "relu", ("pre_classifier.*", "classifier.*"))
NAMES = Names("distilbert.", "distilbert.embeddings.word_embeddings", MASKED.decoder, older=OLDER, unused=UNUSED)
PLACES = EncoderNames(
    positions="distilbert.embeddings.position_embeddings",
    types="",
    embedding_norm="distilbert.embeddings.LayerNorm",
    projection="",
    layer=LayerNames(
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


def parse(config: ConfigReader) -> PostNormEncoder:
    hidden, heads = config.integer("dim"), config.integer("n_heads")
    config.require(hidden % heads == 0, f"dim is {hidden}, expected a multiple of n_heads, {heads}")
    sizes = EncoderConfig(
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
    return PostNormEncoder(sizes, NAMES, PLACES, MASKED, TEXT)
