"""Granite with a mixture of experts: Llama whose embeddings, residuals, attention and logits are multiplied by
numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import onnx_ir as ir

from edgellm_export.architectures.llama import read_llama
from edgellm_export.architectures.mixture import Mixture, MixtureConfig, read_experts, stacked, whole_heads
from edgellm_export.architectures.names import Names
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, LayerCache, Stream
from edgellm_export.checkpoint.config import ConfigReader

BLOCK = "block_sparse_moe"


def parse(config: ConfigReader) -> GraniteMoe:
    config.no_windows()
    bias = config.flag("attention_bias")
    llama = read_llama(config)
    whole_heads(config, llama)
    heads = replace(llama.heads, scale=config.number("attention_multiplier"))
    experts = read_experts(config, "num_local_experts", "intermediate_size", normalized=True, act=llama.hidden_act)
    experts = replace(experts, router="router.layer")
    names = Names(
        stacked={
            **stacked(BLOCK, f"{BLOCK}.input_linear", f"{BLOCK}.output_linear", experts),
            **stacked(BLOCK, f"{BLOCK}.experts.gate_up_proj", f"{BLOCK}.experts.down_proj", experts),
        },
        older={f".{BLOCK}.router.weight": f".{BLOCK}.router.layer.weight"},  # as transformers 5 has them in memory
    )
    return GraniteMoe(
        replace(llama, heads=heads, qkv_bias=bias, output_bias=bias),
        names,
        mixture=MixtureConfig(experts, BLOCK),
        embedding_multiplier=config.number("embedding_multiplier"),
        residual_multiplier=config.number("residual_multiplier"),
        logits_scaling=config.number("logits_scaling"),
    )


@dataclass(frozen=True)
class GraniteMoe(Mixture):
    embedding_multiplier: float = field(kw_only=True)
    residual_multiplier: float = field(kw_only=True)
    logits_scaling: float = field(kw_only=True)

    def embed(self, b: Build, input_ids: ir.Value, batch: BatchState) -> Stream:
        x = super().embed(b, input_ids, batch).residual
        return Stream(_times(b, x, self.embedding_multiplier, f"{self.names.embedding}.multiplier"))

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        return _times(b, super().head(b, hidden), 1 / self.logits_scaling, f"{self.names.head}.scaling")

    def _attention(
        self, b: Build, x: ir.Value, name: str, cache: LayerCache, batch: BatchState, index: int
    ) -> tuple[ir.Value, LayerCache]:
        y, present = super()._attention(b, x, name, cache, batch, index)
        return _times(b, y, self.residual_multiplier, f"{name}.multiplier"), present

    def _mlp(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        return _times(b, super()._mlp(b, x, name), self.residual_multiplier, f"{name}.multiplier")


def _times(b: Build, x: ir.Value, factor: float, name: str) -> ir.Value:
    return x if factor == 1 else blocks.scale(b, x, factor, name)
