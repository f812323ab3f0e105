"""GPT-BigCode (StarCoder, SantaCoder): GPT-2 whose queries may share one head of keys and values."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.classic import GPT2_KEYS, Classic, LayerNames, read_classic, with_positions
from edgellm_export.architectures.names import Names
from edgellm_export.blocks.attention import by_kv_head
from edgellm_export.checkpoint.config import ConfigReader

NAMES = Names(prefix="transformer.", embedding="transformer.wte", unused=("*.attn.bias", "*.attn.masked_bias"))
LAYER = LayerNames(
    layer="transformer.h.{}",
    qkv=("attn.c_attn",),
    out="attn.c_proj",
    norms=("ln_1", "ln_2"),
    up="mlp.c_fc",
    down="mlp.c_proj",
    final_norm="transformer.ln_f",
    positions="transformer.wpe",
)


def parse(config: ConfigReader) -> Classic:
    config.must_be("add_cross_attention", False)
    shared = config.flag("multi_query")
    classic = with_positions(read_classic(config, LAYER, GPT2_KEYS, kv_heads=1 if shared else None))
    heads = classic.heads if config.flag("scale_attn_weights") else replace(classic.heads, scale=1.0)
    return Classic(replace(classic, heads=heads, packing=None if shared else by_kv_head(heads)), NAMES)
