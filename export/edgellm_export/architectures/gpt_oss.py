"""gpt-oss: a mixture of experts with biases and a clamped gate, and attention with a sink for each head."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from edgellm_export.architectures.llama import read_llama
from edgellm_export.architectures.mixture import MLP, Mixture, MixtureConfig, read_experts
from edgellm_export.architectures.names import Names, Stacked
from edgellm_export.blocks import attention
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, LayerCache
from edgellm_export.checkpoint.config import FULL, SLIDING, ConfigReader

LIMIT = 7.0  # of transformers' class; config.json says it too, where it says it
BOTH = (f"{MLP}.experts.{{}}.gate_proj", f"{MLP}.experts.{{}}.up_proj")
DOWN = (f"{MLP}.experts.{{}}.down_proj",)
NAMES = Names(
    stacked={
        f"{MLP}.experts.gate_up_proj": Stacked(BOTH, in_turn=True, transposed=True),
        f"{MLP}.experts.gate_up_proj_bias": Stacked(BOTH, "bias", in_turn=True),
        f"{MLP}.experts.down_proj": Stacked(DOWN, transposed=True),
        f"{MLP}.experts.down_proj_bias": Stacked(DOWN, "bias"),
    },
    older={".self_attn.sinks.weight": ".self_attn.sinks"},  # as GGUF files call it
)


def parse(config: ConfigReader) -> GptOss:
    config.must_be("attention_bias", True)
    config.must_be("swiglu_limit", LIMIT)
    config.must_be("attention_chunk_size", None)
    llama = read_llama(config)
    config.must_be("hidden_act", "silu")  # which names no function: all have the clamped gate
    default = [FULL if i % 2 else SLIDING for i in range(llama.shape.num_layers)]
    windows = config.windows(config.optional_integer("sliding_window"), default)
    experts = read_experts(config, "num_local_experts", "intermediate_size", normalized=True, act=llama.hidden_act)
    experts = replace(experts, router="router", bias=True, limit=LIMIT)
    return GptOss(
        replace(llama, windows=windows, qkv_bias=True, output_bias=True), NAMES, mixture=MixtureConfig(experts)
    )


class GptOss(Mixture):
    def _attention(
        self, b: Build, x: ir.Value, name: str, cache: LayerCache, batch: BatchState, index: int
    ) -> tuple[ir.Value, LayerCache]:
        c, hidden = self.config, self.shape.hidden_size
        heads = replace(c.heads, window=c.windows[index])
        qkv = [attention.packed_qkv(b, x, name, heads, hidden, bias=True)]
        sinks = b.vector(f"{name}.sinks", heads.num_heads)
        y, present = attention.grouped_query(
            b, qkv, heads, cache, batch, c.rope, self.shape.context_length, name, sinks=sinks
        )
        return blocks.linear(b, y, f"{name}.o_proj", hidden, heads.query_size, bias=True), present
