"""Qwen3 with a mixture of experts in the place of the MLP."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import read_llama
from edgellm_export.architectures.mixture import Mixture, MixtureConfig, dense_layers, read_experts, usual_names
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Mixture:
    bias = config.flag("attention_bias")
    llama = replace(read_llama(config), qkv_bias=bias, output_bias=bias, qk_norm=True)
    layers, normalized = llama.shape.num_layers, config.flag("norm_topk_prob")
    window = config.optional_integer("sliding_window") if config.flag("use_sliding_window") else None
    config.all_layers_see(window)
    count = "num_experts" if config.data.get("num_local_experts") is None else "num_local_experts"  # transformers 5's
    experts = read_experts(config, count, "moe_intermediate_size", normalized=normalized, act=llama.hidden_act)
    mixture = MixtureConfig(experts, dense=dense_layers(config, layers))
    return Mixture(replace(llama, windows=[window] * layers), usual_names(experts), mixture=mixture)
