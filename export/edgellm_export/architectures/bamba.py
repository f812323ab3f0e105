"""Bamba: Llama, half of whose heads' channels are rotated, and with state spaces in most layers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import onnx_ir as ir

from edgellm_export.architectures.llama import Relative, read_llama, with_biases
from edgellm_export.architectures.mamba import MAMBA_KEYS, read_state_space
from edgellm_export.architectures.names import Names
from edgellm_export.blocks.build import BatchState, Build, LayerCache
from edgellm_export.blocks.state_space import StateSpace, state_space
from edgellm_export.checkpoint.config import ConfigReader

ROTATED = 0.5  # whatever config.json says
NAMES = Names(
    older={
        "pre_ff_layernorm.weight": "post_attention_layernorm.weight",
        "final_layernorm.weight": "norm.weight",
        **{
            f"feed_forward.{part}_proj.{kind}": f"mlp.{part}_proj.{kind}"
            for part in ("gate", "up", "down")
            for kind in ("weight", "bias")
        },
    }
)


def parse(config: ConfigReader) -> Bamba:
    llama = replace(with_biases(config, read_llama(config, share=ROTATED)), mlp_bias=config.flag("mlp_bias"))
    layers, listed = llama.shape.num_layers, config.data.get("attn_layer_indices")
    known = isinstance(listed, list) and bool(listed) and all(type(i) is int and 0 <= i < layers for i in listed)
    config.require(known, f"attn_layer_indices is {listed!r}, expected numbers of {layers} layers, one at least")
    mamba = [i for i in range(layers) if not known or i not in (listed or [])]
    config.require(bool(mamba), "no layer has a state space, expected one at least")
    hidden = llama.shape.hidden_size
    space = read_state_space(config, MAMBA_KEYS, hidden, mamba, eps=llama.rms_norm_eps, act=llama.hidden_act)
    return Bamba(replace(llama, shape=replace(llama.shape, states=space.layout)), NAMES, space=space)


@dataclass(frozen=True)
class Bamba(Relative):
    space: StateSpace = field(kw_only=True)

    def _attention(
        self, b: Build, x: ir.Value, name: str, cache: LayerCache, batch: BatchState, index: int
    ) -> tuple[ir.Value, LayerCache]:
        if index not in self.space.layout.layers:
            return super()._attention(b, x, name, cache, batch, index)
        return state_space(b, x, f"{name.rpartition('.')[0]}.mamba", self.space, cache, batch)
