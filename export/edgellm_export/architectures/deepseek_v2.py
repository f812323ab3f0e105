"""DeepSeek-V2: latent attention, and mixtures of experts beside an expert that all tokens go through."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import onnx_ir as ir

from edgellm_export.architectures.llama import LlamaConfig, read_llama
from edgellm_export.architectures.mixture import MLP, Mixture, MixtureConfig, read_experts, usual_names
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, LayerCache, node
from edgellm_export.blocks.latent import Latent, latent_attention
from edgellm_export.blocks.ranking import Ranking
from edgellm_export.blocks.rope import yarn_magnitude
from edgellm_export.checkpoint.config import MAX_HEAD_DIM, ConfigReader


def parse(config: ConfigReader) -> Deepseek:
    config.must_be("mlp_bias", False)
    config.must_be("norm_topk_prob", False)  # which transformers does not look at
    config.must_be("scoring_func", "softmax")
    limited = config.choice("topk_method", ["greedy", "group_limited_greedy"]) == "group_limited_greedy"
    return read_deepseek(config, read_groups(config) if limited else Ranking(), normalized=False, neighbours=True)


def read_groups(config: ConfigReader) -> Ranking:
    """Of how many groups experts are, and from how many a token's come."""
    groups, chosen = config.integer("n_group"), config.integer("topk_group")
    count, experts = config.integer("n_routed_experts"), config.integer("num_experts_per_tok")
    config.require(count % groups == 0, f"{count} experts are no {groups} groups of the same size")
    config.require(
        chosen <= groups and experts <= chosen * (count // groups),
        f"{experts} experts of a token do not fit into {chosen} of {groups} groups of {count} experts",
    )
    return Ranking(groups, min(chosen, groups))


def read_deepseek(config: ConfigReader, ranking: Ranking, *, normalized: bool, neighbours: bool) -> Deepseek:
    """`normalized`: the weights of a token's experts. `neighbours`: channels that rotate together are."""
    config.no_windows()
    config.must_be("moe_layer_freq", 1)
    latent, llama = read_latent(config, neighbours=neighbours)
    ranking = replace(ranking, scaling=config.number("routed_scaling_factor"))
    size = "moe_intermediate_size"
    experts = read_experts(config, "n_routed_experts", size, normalized=normalized, act=llama.hidden_act)
    experts = replace(experts, ranking=ranking)
    dense = config.integer("first_k_dense_replace", 0, minimum=0)
    shared = (config.optional_integer("n_shared_experts") or 0) * experts.size
    names = frozenset(f"model.layers.{i}.{MLP}" for i in range(min(dense, llama.shape.num_layers)))
    return Deepseek(llama, usual_names(experts), mixture=MixtureConfig(experts, MLP, names, shared), latent=latent)


def read_latent(config: ConfigReader, *, neighbours: bool) -> tuple[Latent, LlamaConfig]:
    """What attention is made of, and the rest: of the head that all queries see."""
    count, rotated = config.integer("num_attention_heads"), config.integer("qk_rope_head_dim")
    for key, expected in (("num_key_value_heads", count), ("head_dim", rotated)):
        found = config.integer(key, expected)
        config.require(found == expected, f"{key} is {found}, expected {expected}")
    settled = {**config.data, "head_dim": rotated, "num_key_value_heads": count}
    llama = read_llama(replace(config, data=settled))
    still = config.integer("qk_nope_head_dim")
    latent = Latent(
        num_heads=count,
        kv_lora_rank=config.integer("kv_lora_rank", maximum=MAX_HEAD_DIM),
        q_lora_rank=config.optional_integer("q_lora_rank"),
        qk_nope_head_dim=still,
        qk_rope_head_dim=rotated,
        v_head_dim=config.integer("v_head_dim"),
        scale=(still + rotated) ** -0.5 * yarn_magnitude(config) ** 2,
        neighbours=rotated if neighbours else 0,
        bias=config.flag("attention_bias"),
    )
    rank = latent.kv_lora_rank
    config.require(rank % 16 == 0, f"kv_lora_rank is {rank}, expected a multiple of 16")
    shape = replace(
        llama.shape, num_kv_heads=1, head_dim=latent.heads.head_dim, learned_positions=True, values_are_keys=True
    )
    return latent, replace(llama, shape=shape, heads=latent.heads)


@dataclass(frozen=True)
class Deepseek(Mixture):
    latent: Latent = field(kw_only=True)

    def _attention(
        self, b: Build, x: ir.Value, name: str, cache: LayerCache, batch: BatchState, index: int
    ) -> tuple[ir.Value, LayerCache]:
        c, own = self.config, self.latent
        y, present = latent_attention(b, x, name, own, cache, batch, c.rope, self.shape.context_length)
        return blocks.linear(b, y, f"{name}.o_proj", self.shape.hidden_size, own.value_size, bias=own.bias), present

    def _with_shared(self, b: Build, x: ir.Value, y: ir.Value, name: str) -> ir.Value:
        """y + shared_experts(x)."""
        m, hidden, expert = self.mixture, self.shape.hidden_size, f"{name}.shared_experts"
        made = blocks.gated(b, x, expert, m.shared, hidden, m.experts.act, bias=False, fused=False)
        made = blocks.linear(b, made, f"{expert}.down_proj", hidden, m.shared, bias=False)
        return b.graph.op("Add", y, made, name=f"{node(expert)}/Add")
