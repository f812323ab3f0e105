"""GPT-J: attention and MLP side by side behind one norm, channels rotated together with their neighbours."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.classic import (
    GPT2_KEYS,
    Classic,
    ClassicConfig,
    LayerNames,
    read_classic,
    with_rope,
)
from edgellm_export.architectures.names import Names
from edgellm_export.blocks.rope import plain_rope
from edgellm_export.checkpoint.config import ConfigReader

THETA = 10000.0
BUFFERS = ("*.attn.bias", "*.attn.masked_bias", "*.attn.embed_positions")  # of older checkpoints
NAMES = Names(prefix="transformer.", embedding="transformer.wte", head_bias="lm_head.bias", unused=BUFFERS)
LAYER = LayerNames(
    layer="transformer.h.{}",
    qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    out="attn.out_proj",
    norms=("ln_1",),
    up="mlp.fc_in",
    down="mlp.fc_out",
    final_norm="transformer.ln_f",
)


def parse(config: ConfigReader) -> Classic:
    return Classic(read_gptj(config, LAYER), NAMES)


def read_gptj(config: ConfigReader, names: LayerNames) -> ClassicConfig:
    classic = read_classic(config, names, GPT2_KEYS)
    rotated = config.integer("rotary_dim", minimum=2, maximum=classic.heads.head_dim)
    config.require(rotated % 2 == 0, f"rotary_dim is {rotated}, expected pairs")
    classic = with_rope(config, classic, plain_rope(THETA, rotated))
    heads = replace(classic.heads, neighbours=rotated)
    return replace(classic, heads=heads, parallel=True, qkv_bias=False, output_bias=False)
