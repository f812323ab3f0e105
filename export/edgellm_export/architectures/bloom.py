"""BLOOM: a norm behind the embedding, and ALiBi for positions."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.classic import Classic, Keys, LayerNames, read_classic, with_n_embed
from edgellm_export.architectures.names import Names
from edgellm_export.blocks.alibi import Alibi, geometric_slopes
from edgellm_export.blocks.attention import by_kv_head
from edgellm_export.checkpoint.config import ConfigReader

NAMES = Names(prefix="transformer.", embedding="transformer.word_embeddings")
LAYER = LayerNames(
    layer="transformer.h.{}",
    qkv=("self_attention.query_key_value",),
    out="self_attention.dense",
    norms=("input_layernorm", "post_attention_layernorm"),
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    final_norm="transformer.ln_f",
    embedding_norm="transformer.word_embeddings_layernorm",
)
# seq_length is what BLOOM was trained on, which transformers does not read: its positions have no end.
KEYS = Keys(layers="n_layer", heads="n_head", inner=None, positions="seq_length", eps="layer_norm_epsilon", act=None)


def parse(config: ConfigReader) -> Classic:
    config.must_be("apply_residual_connection_post_layernorm", False)
    classic = read_classic(config, LAYER, with_n_embed(config, KEYS))
    alibi = Alibi(geometric_slopes(classic.heads.num_heads))
    return Classic(replace(classic, packing=by_kv_head(classic.heads), alibi=alibi), NAMES)
