"""Mixtral: Mistral with a mixture of experts in the place of the MLP."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import read_llama
from edgellm_export.architectures.mixture import Mixture, MixtureConfig, read_experts, stacked
from edgellm_export.architectures.names import Names
from edgellm_export.blocks.experts import Experts
from edgellm_export.checkpoint.config import ConfigReader

BLOCK = "block_sparse_moe"


def parse(config: ConfigReader) -> Mixture:
    llama = read_llama(config)
    window = config.optional_integer("sliding_window")
    config.all_layers_see(window)
    experts = read_experts(config, "num_local_experts", "intermediate_size", normalized=True, act=llama.hidden_act)
    experts = replace(experts, gate="w1", up="w3", down="w2")
    windows = [window] * llama.shape.num_layers
    return Mixture(replace(llama, windows=windows), mixtral_names(experts), mixture=MixtureConfig(experts, BLOCK))


def mixtral_names(experts: Experts) -> Names:
    """Those of transformers 4, also where 5 wrote them as it has them in memory."""
    return Names(
        stacked=stacked(BLOCK, "mlp.experts.gate_up_proj", "mlp.experts.down_proj", experts),
        older={f".mlp.{router}.weight": f".{BLOCK}.gate.weight" for router in ("gate", "router")},
    )
