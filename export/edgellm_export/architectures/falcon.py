"""Falcon: queries that share heads of keys and values, attention and MLP side by side, and a rope or ALiBi."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.classic import (
    Classic,
    ClassicConfig,
    Keys,
    LayerNames,
    read_classic,
    read_rotated,
    with_n_embed,
)
from edgellm_export.architectures.names import Names
from edgellm_export.blocks.alibi import Alibi, geometric_slopes
from edgellm_export.blocks.attention import by_kv_head
from edgellm_export.checkpoint.config import ConfigReader

NAMES = Names(prefix="transformer.", embedding="transformer.word_embeddings")
IN_TURN = LayerNames(
    layer="transformer.h.{}",
    qkv=("self_attention.query_key_value",),
    out="self_attention.dense",
    norms=("input_layernorm", "post_attention_layernorm"),
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    final_norm="transformer.ln_f",
)
ONE_NORM, TWO_NORMS = replace(IN_TURN, norms=("input_layernorm",)), replace(IN_TURN, norms=("ln_attn", "ln_mlp"))
KEYS = Keys(inner="ffn_hidden_size", eps="layer_norm_epsilon", act="activation")


def parse(config: ConfigReader) -> Classic:
    new, parallel, bias = (config.flag(key) for key in ("new_decoder_architecture", "parallel_attn", "bias"))
    if new:
        config.must_be("parallel_attn", True, null=False)
    default = 2 if new else 1
    norms = config.integer("num_ln_in_parallel_attn", default, maximum=2)
    config.require(new or not parallel or norms == 1, "num_ln_in_parallel_attn is 2 without new_decoder_architecture")
    names = IN_TURN if not parallel else TWO_NORMS if norms == 2 else ONE_NORM
    kv_heads = 1 if config.flag("multi_query") and not new else config.optional_integer("num_kv_heads")
    classic = _placed(config, read_classic(config, names, with_n_embed(config, KEYS), kv_heads=kv_heads))
    packing = by_kv_head(classic.heads)
    return Classic(
        replace(classic, packing=packing, parallel=parallel, qkv_bias=bias, output_bias=bias, mlp_bias=bias), NAMES
    )


def _placed(config: ConfigReader, classic: ClassicConfig) -> ClassicConfig:
    """With positions of the one kind or the other."""
    if not config.flag("alibi"):
        return read_rotated(config, classic, theta=config.number("rope_theta"), share=None)
    slopes = geometric_slopes(classic.heads.num_heads)
    return replace(classic, alibi=Alibi(slopes, scale=classic.heads.head_dim**-0.5, coarse=True))
