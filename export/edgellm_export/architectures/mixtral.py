"""Mixtral: Mistral with a mixture of experts in the place of the MLP."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import read_llama
from edgellm_export.architectures.mixture import Mixture, MixtureConfig, read_experts, stacked
from edgellm_export.architectures.names import Names
from edgellm_export.checkpoint.config import ConfigReader

BLOCK = "block_sparse_moe"


def parse(config: ConfigReader) -> Mixture:
    llama = read_llama(config)
    window = config.optional_integer("sliding_window")
    config.all_layers_see(window)
    experts = read_experts(config, "num_local_experts", "intermediate_size", normalized=True, act=llama.hidden_act)
    experts = replace(experts, gate="w1", up="w3", down="w2")
    names = Names(
        stacked=stacked(BLOCK, "mlp.experts.gate_up_proj", "mlp.experts.down_proj", experts),
        older={".mlp.gate.weight": f".{BLOCK}.gate.weight"},  # as transformers 5 calls it
    )
    windows = [window] * llama.shape.num_layers
    return Mixture(replace(llama, windows=windows), names, mixture=MixtureConfig(experts, BLOCK))
