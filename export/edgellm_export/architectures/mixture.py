"""What mixtures of experts share: Llama with a mixture in the place of the MLP of some layers, or of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from edgellm_export.architectures.llama import Llama, LlamaConfig
from edgellm_export.architectures.names import MAX_EXPERTS, USUAL, Names, Stacked
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build, node
from edgellm_export.blocks.experts import Experts, mixture
from edgellm_export.checkpoint.config import ConfigReader

MLP = "mlp"


def stacked(block: str, both: str, down: str, experts: Experts) -> Mapping[str, Stacked]:
    """For `Names.stacked`: the tensors `both`, of gates and ups, and `down`, of the experts of the layers' `block`."""
    gate, up, out = (f"{block}.experts.{{}}.{part}" for part in (experts.gate, experts.up, experts.down))
    return {both: Stacked((gate, up)), down: Stacked((out,))}


def usual_names(experts: Experts) -> Names:
    """Those of the Qwens and OLMoE."""
    return Names(stacked=stacked(MLP, f"{MLP}.experts.gate_up_proj", f"{MLP}.experts.down_proj", experts))


def read_experts(config: ConfigReader, count: str, size: str, *, normalized: bool, act: str) -> Experts:
    """`count`, `size`: keys of the number of experts and of the channels in each."""
    experts = Experts(
        count=config.integer(count, maximum=MAX_EXPERTS),
        chosen=config.integer("num_experts_per_tok"),
        size=config.integer(size),
        normalized=normalized,
        act=act,
    )
    config.require(
        experts.chosen <= experts.count,
        f"num_experts_per_tok is {experts.chosen}, and there are {experts.count} experts",
    )
    return experts


def whole_heads(config: ConfigReader, llama: LlamaConfig) -> None:
    """Refuse heads that do not make up the hidden size: classes without a head_dim of their own have no others."""
    heads, hidden = llama.heads, llama.shape.hidden_size
    config.require(
        heads.query_size == hidden, f"{heads.num_heads} heads of {heads.head_dim} are not the hidden_size {hidden}"
    )


def dense_layers(config: ConfigReader, layers: int) -> frozenset[str]:
    """The names of the MLPs that have no experts, as the Qwens say it."""
    step, listed = config.integer("decoder_sparse_step", 1), config.data.get("mlp_only_layers") or []
    if not isinstance(listed, list) or not all(type(each) is int for each in listed):
        config.require(False, f"mlp_only_layers is {listed!r}, expected a list of whole numbers")
        listed = []
    return frozenset(f"model.layers.{i}.{MLP}" for i in range(layers) if i in listed or (i + 1) % step)


@dataclass(frozen=True)
class MixtureConfig:
    """`block`: what the layers' mixtures are called. `dense`: names of the MLPs that have none. `shared`: channels of
    an expert that all tokens go through, too, or 0."""

    experts: Experts
    block: str = MLP
    dense: frozenset[str] = frozenset()
    shared: int = 0


@dataclass(frozen=True)
class Mixture(Llama):
    """Llama with a mixture of experts."""

    known_to_genai = False

    config: LlamaConfig
    names: Names = USUAL
    mixture: MixtureConfig = field(kw_only=True)

    def _mlp(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        m = self.mixture
        if name in m.dense:
            return super()._mlp(b, x, name)
        place = f"{name.removesuffix(MLP)}{m.block}"
        y = mixture(b, x, place, m.experts)
        return self._with_shared(b, x, y, place) if m.shared else y

    def _with_shared(self, b: Build, x: ir.Value, y: ir.Value, name: str) -> ir.Value:
        """y + sigmoid(shared_expert_gate(x)) * shared_expert(x)."""
        m, g, hidden, expert = self.mixture, b.graph, self.shape.hidden_size, f"{name}.shared_expert"
        made = blocks.gated(b, x, expert, m.shared, hidden, m.experts.act, bias=False, fused=False)
        made = blocks.linear(b, made, f"{expert}.down_proj", hidden, m.shared, bias=False)
        gate = blocks.linear(b, x, f"{expert}_gate", 1, hidden, bias=False)
        share = g.op("Sigmoid", gate, name=f"{node(expert)}/Sigmoid")
        made = g.op("Mul", share, made, name=f"{node(expert)}/Weighted")
        return g.op("Add", y, made, name=f"{node(expert)}/Add")
