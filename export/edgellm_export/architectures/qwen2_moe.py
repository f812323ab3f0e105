"""Qwen2 with a mixture of experts in the place of the MLP, one of which all tokens go through."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import read_llama
from edgellm_export.architectures.mixture import (
    Mixture,
    MixtureConfig,
    dense_layers,
    read_experts,
    usual_names,
    whole_heads,
)
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Mixture:
    config.must_be("use_sliding_window", False)  # transformers 4.57 has windows on all layers then, 5 on the last ones
    config.all_layers_see(None)
    llama, normalized = read_llama(config), config.flag("norm_topk_prob")
    whole_heads(config, llama)
    experts = read_experts(config, "num_experts", "moe_intermediate_size", normalized=normalized, act=llama.hidden_act)
    mixture = MixtureConfig(
        experts,
        dense=dense_layers(config, llama.shape.num_layers),
        shared=config.integer("shared_expert_intermediate_size"),
    )
    return Mixture(replace(llama, qkv_bias=config.flag("qkv_bias", True)), usual_names(experts), mixture=mixture)
