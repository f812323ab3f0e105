"""Granite 4: Granite with another MLP, perhaps beside experts, perhaps without a rope, and with state spaces in the
place of attention in most layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgellm.errors import UnsupportedModelError
from edgellm_export.architectures.granite import Granite, read_factors, scaled_llama
from edgellm_export.architectures.granitemoe import BLOCK, named_experts
from edgellm_export.architectures.llama import LlamaConfig, with_biases
from edgellm_export.architectures.mamba import MAMBA_KEYS, read_state_space
from edgellm_export.architectures.names import USUAL
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, LayerCache, node
from edgellm_export.blocks.experts import Experts, mixture
from edgellm_export.blocks.state_space import StateSpace, state_space
from edgellm_export.checkpoint.config import FULL, ConfigReader

MAMBA, ATTENTION = ("mamba", "linear_attention"), ("attention", FULL)  # as transformers 4 and 5 call them


def parse(config: ConfigReader) -> GraniteHybrid:
    config.must_be("sliding_window", None)
    llama = with_biases(config, scaled_llama(config))
    config.must_be("head_dim", max(1, llama.shape.hidden_size // llama.heads.num_heads))
    layers, experts, names = llama.shape.num_layers, None, USUAL
    if config.data.get("position_embedding_type") != "rope":
        llama = replace(llama, ropes=[None] * layers, shape=replace(llama.shape, ropes=()))
    if config.data.get("num_local_experts") != 0:
        experts, names = named_experts(config, llama.hidden_act)
    space = _space(config, llama, _kinds(config, layers))
    if space is not None:
        llama = replace(llama, shape=replace(llama.shape, states=space.layout))
    sized = replace(llama, intermediate_size=config.integer("shared_intermediate_size"))
    return GraniteHybrid(sized, names, factors=read_factors(config), experts=experts, space=space)


def _kinds(config: ConfigReader, layers: int) -> Sequence[str]:
    """What each layer has."""
    kinds = config.data.get("layer_types")
    listed = kinds if isinstance(kinds, list) and len(kinds) == layers else []
    if not any(kind in ATTENTION for kind in listed) or not all(kind in (*MAMBA, *ATTENTION) for kind in listed):
        raise UnsupportedModelError(
            f"config.json: layer_types is {kinds!r}, expected {layers} of {MAMBA[0]!r} and {ATTENTION[0]!r}, one of "
            "them at least with attention"
        )
    return listed


def _space(config: ConfigReader, llama: LlamaConfig, kinds: Sequence[str]) -> StateSpace | None:
    layers, hidden = [i for i, kind in enumerate(kinds) if kind in MAMBA], llama.shape.hidden_size
    if not layers:
        return None
    return read_state_space(config, MAMBA_KEYS, hidden, layers, eps=llama.rms_norm_eps, act=llama.hidden_act)


@dataclass(frozen=True)
class GraniteHybrid(Granite):
    """`experts`: beside each layer's MLP."""

    known_to_genai = False  # which expects other states of Mamba

    experts: Experts | None = None
    space: StateSpace | None = None

    def _attention(
        self, b: Build, x: ir.Value, name: str, cache: LayerCache, batch: BatchState, index: int
    ) -> tuple[ir.Value, LayerCache]:
        if self.space is None or index not in self.space.layout.layers:
            return super()._attention(b, x, name, cache, batch, index)
        name = f"{name.rpartition('.')[0]}.mamba"
        y, present = state_space(b, x, name, self.space, cache, batch)
        return self._scaled(b, y, self.factors.residual, f"{name}.scale"), present

    def _plain_mlp(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        c, hidden, layer = self.config, self.shape.hidden_size, name.rpartition(".")[0]
        name = f"{layer}.shared_mlp"
        y = blocks.gated(
            b, x, name, c.intermediate_size, hidden, c.hidden_act, bias=False, fused=True, matrix="input_linear"
        )
        y = blocks.linear(b, y, f"{name}.output_linear", hidden, c.intermediate_size, bias=False)
        if self.experts is None:
            return y
        chosen = mixture(b, x, f"{layer}.{BLOCK}", self.experts)
        return b.graph.op("Add", chosen, y, name=f"{node(name)}/Add")
