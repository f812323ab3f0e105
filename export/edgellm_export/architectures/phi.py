"""Phi, Phi-1.5 and Phi-2: attention and MLP side by side behind one norm, a part of each head rotated, and an output
layer with a bias."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.classic import Classic, LayerNames, read_classic, read_rotated
from edgellm_export.architectures.names import Names
from edgellm_export.checkpoint.config import ConfigReader

NAMES = Names(head_bias="lm_head.bias")
LAYER = LayerNames(
    layer="model.layers.{}",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out="self_attn.dense",
    norms=("input_layernorm",),
    up="mlp.fc1",
    down="mlp.fc2",
    final_norm="model.final_layernorm",
)


def parse(config: ConfigReader) -> Classic:
    config.must_be("qk_layernorm", False)
    kv_heads = config.optional_integer("num_key_value_heads")
    classic = read_classic(config, LAYER, kv_heads=kv_heads)
    theta, share = config.number("rope_theta"), config.number("partial_rotary_factor")
    return Classic(replace(read_rotated(config, classic, theta=theta, share=share), parallel=True), NAMES)
