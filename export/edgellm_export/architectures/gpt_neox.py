"""GPT-NeoX (Pythia): attention and MLP side by side behind a norm each, a part of each head rotated."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.classic import Classic, LayerNames, read_classic, read_rotated
from edgellm_export.architectures.names import Names
from edgellm_export.blocks.attention import by_kv_head
from edgellm_export.checkpoint.config import ConfigReader

BUFFERS = ("*.attention.bias", "*.attention.masked_bias", "*.rotary_emb.inv_freq")  # of older checkpoints
NAMES = Names(prefix="gpt_neox.", embedding="gpt_neox.embed_in", head="embed_out", unused=BUFFERS)
LAYER = LayerNames(
    layer="gpt_neox.layers.{}",
    qkv=("attention.query_key_value",),
    out="attention.dense",
    norms=("input_layernorm", "post_attention_layernorm"),
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    final_norm="gpt_neox.final_layer_norm",
)


def parse(config: ConfigReader) -> Classic:
    classic = read_classic(config, LAYER)
    theta, share = config.number("rotary_emb_base"), config.number("rotary_pct")
    rotated = read_rotated(config, classic, theta=theta, share=share)
    parallel, bias = config.flag("use_parallel_residual"), config.flag("attention_bias")
    packing = by_kv_head(rotated.heads)
    return Classic(replace(rotated, packing=packing, parallel=parallel, qkv_bias=bias, output_bias=bias), NAMES)
