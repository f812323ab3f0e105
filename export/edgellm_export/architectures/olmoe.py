"""OLMoE: Llama with a mixture of experts, and queries and keys that are normed as a whole, not head by head."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from edgellm_export.architectures.llama import read_llama
from edgellm_export.architectures.mixture import Mixture, MixtureConfig, read_experts, usual_names, whole_heads
from edgellm_export.blocks import attention, norms
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, LayerCache, node
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Olmoe:
    config.no_windows()
    bias, normalized = config.flag("attention_bias"), config.flag("norm_topk_prob")
    llama = replace(read_llama(config), qkv_bias=bias, output_bias=bias)
    whole_heads(config, llama)
    experts = read_experts(config, "num_experts", "intermediate_size", normalized=normalized, act=llama.hidden_act)
    clip = config.optional_number("clip_qkv")
    return Olmoe(llama, usual_names(experts), mixture=MixtureConfig(experts), clip=clip)


@dataclass(frozen=True)
class Olmoe(Mixture):
    """`clip`: queries, keys and values are no larger."""

    clip: float | None = field(default=None, kw_only=True)

    def _attention(
        self, b: Build, x: ir.Value, name: str, cache: LayerCache, batch: BatchState, index: int
    ) -> tuple[ir.Value, LayerCache]:
        c, hidden = self.config, self.shape.hidden_size
        heads, bias = c.heads, c.qkv_bias
        q, k, v = (
            blocks.linear(b, x, f"{name}.{side}_proj", size, hidden, bias=bias)
            for side, size in (("q", heads.query_size), ("k", heads.kv_size), ("v", heads.kv_size))
        )
        q, k = (
            norms.rms_norm(b, y, b.vector(f"{name}.{side}_norm.weight", size), c.rms_norm_eps, f"{name}.{side}_norm")
            for side, y, size in (("q", q, heads.query_size), ("k", k, heads.kv_size))
        )
        qkv = [self._clipped(b, y, f"{name}.{side}") for side, y in (("q", q), ("k", k), ("v", v))]
        y, present = attention.grouped_query(b, qkv, heads, cache, batch, c.rope, self.shape.context_length, name)
        return blocks.linear(b, y, f"{name}.o_proj", hidden, heads.query_size, bias=c.output_bias), present

    def _clipped(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        if self.clip is None:
            return x
        low, high = (
            b.graph.constant(f"/constants/clip/{n}", np.array(n, b.activation)) for n in (-self.clip, self.clip)
        )
        return b.graph.op("Clip", x, low, high, name=f"{node(name)}/Clip")
