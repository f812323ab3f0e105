"""Phi-3.5-MoE: a mixture of experts with layer norms, biases, LongRoPE with magnitudes of its own, and a router whose
weights are shares among the experts that are near the best."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from edgellm_export.architectures.llama import LlamaConfig, read_llama
from edgellm_export.architectures.mixtral import BLOCK, mixtral_names
from edgellm_export.architectures.mixture import Mixture, MixtureConfig, read_experts, whole_heads
from edgellm_export.blocks import norms
from edgellm_export.blocks.build import Build, Stream
from edgellm_export.blocks.rope import LongRope
from edgellm_export.checkpoint.config import ConfigReader, is_positive

KINDS = {"default": "default", "longrope": "longrope", "su": "longrope"}
MIXED = 2  # experts of a token, whatever config.json says


def parse(config: ConfigReader) -> Phimoe:
    llama = _with_magnitude(config, read_llama(config, kinds=KINDS))
    whole_heads(config, llama)
    window, bias = config.optional_integer("sliding_window"), config.flag("attention_bias")
    config.all_layers_see(window)
    config.require(config.integer("num_experts_per_tok") == MIXED, f"num_experts_per_tok is not {MIXED}")
    noise = config.number("router_jitter_noise", 0.0, positive=False)
    experts = read_experts(config, "num_local_experts", "intermediate_size", normalized=True, act=llama.hidden_act)
    experts = replace(experts, gate="w1", up="w3", down="w2", nearness=2 * noise)
    names, has_bias = mixtral_names(experts), config.flag("lm_head_bias")
    llama = replace(llama, windows=[window] * llama.shape.num_layers, qkv_bias=bias, output_bias=bias)
    return Phimoe(
        llama,
        replace(names, head_bias="lm_head.bias" if has_bias else None),
        mixture=MixtureConfig(experts, BLOCK),
    )


def _with_magnitude(config: ConfigReader, llama: LlamaConfig) -> LlamaConfig:
    """With what the class multiplies its tables by, in place of what follows from the lengths."""
    rope = llama.rope
    if not isinstance(rope, LongRope):
        return llama
    given = config.data.get("rope_scaling") or config.data.get("rope_parameters") or {}
    short, long = given.get("short_mscale"), given.get("long_mscale")
    config.require(
        is_positive(short) and short == long,
        f"short_mscale is {short!r} and long_mscale {long!r}; edgellm builds one positive number for both",
    )
    rope = replace(rope, attention_factor=float(short) if is_positive(short) else 1.0)
    return replace(llama, rope=rope, shape=replace(llama.shape, ropes=(rope,), recompute_beyond=rope.trained_length))


class Phimoe(Mixture):
    def _norm(self, b: Build, stream: Stream, name: str) -> tuple[ir.Value, Stream]:
        return norms.add_layer_norm(b, stream, name, self.shape.hidden_size, self.config.rms_norm_eps)
