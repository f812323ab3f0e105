"""Granite with a mixture of experts in the place of the MLP."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgellm_export.architectures.granite import Granite, read_factors, scaled_llama
from edgellm_export.architectures.llama import with_biases
from edgellm_export.architectures.mixture import Mixture, MixtureConfig, read_experts, stacked, whole_heads
from edgellm_export.architectures.names import Names
from edgellm_export.blocks.experts import Experts
from edgellm_export.checkpoint.config import ConfigReader

BLOCK = "block_sparse_moe"


def parse(config: ConfigReader) -> GraniteMoe:
    config.no_windows()
    llama = with_biases(config, scaled_llama(config))
    whole_heads(config, llama)
    experts, names = named_experts(config, llama.hidden_act)
    return GraniteMoe(llama, names, mixture=MixtureConfig(experts, BLOCK), factors=read_factors(config))


def named_experts(config: ConfigReader, act: str) -> tuple[Experts, Names]:
    """Those of a layer's `BLOCK`, and what checkpoints call their tensors."""
    experts = read_experts(config, "num_local_experts", "intermediate_size", normalized=True, act=act)
    experts = replace(experts, router="router.layer")
    names = Names(
        stacked={
            **stacked(BLOCK, f"{BLOCK}.input_linear", f"{BLOCK}.output_linear", experts),
            **stacked(BLOCK, f"{BLOCK}.experts.gate_up_proj", f"{BLOCK}.experts.down_proj", experts),
        },
        older={f".{BLOCK}.router.weight": f".{BLOCK}.router.layer.weight"},  # as transformers 5 has them in memory
    )
    return experts, names


@dataclass(frozen=True)
class GraniteMoe(Granite, Mixture):
    """Granite's numbers around a mixture."""
