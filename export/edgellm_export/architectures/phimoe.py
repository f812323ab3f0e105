"""Phi-3.5-MoE: a mixture of experts with layer norms, biases, LongRoPE with magnitudes of its own, and a router whose
weights are shares among the experts that are near the best."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import onnx_ir as ir

from edgellm_export.architectures.llama import LlamaConfig, read_llama
from edgellm_export.architectures.mixtral import BLOCK, mixtral_names
from edgellm_export.architectures.mixture import MLP, Mixture, MixtureConfig, read_experts, whole_heads
from edgellm_export.blocks import norms
from edgellm_export.blocks.build import BatchState, Build, LayerCache, Stream
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
        head_bias=has_bias,
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


@dataclass(frozen=True)
class Phimoe(Mixture):
    head_bias: bool = field(kw_only=True)

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        name = f"model.layers.{index}"
        x, total = self._normed(b, stream, f"{name}.input_layernorm")
        x, present = self._attention(b, x, f"{name}.self_attn", cache, batch, index)
        x, total = self._normed(b, Stream(total, x), f"{name}.post_attention_layernorm")
        return Stream(total, self._mlp(b, x, f"{name}.{MLP}")), present

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self._normed(b, stream, "model.norm")[0]

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        if not self.head_bias:
            return super().head(b, hidden)
        shape, name = self.shape, self.names.embedding if self.tied else self.names.head
        weight = b.tensors.take(f"{name}.weight", (shape.vocab_size, shape.hidden_size))
        return b.project(hidden, weight, b.vector("lm_head.bias", shape.vocab_size), self.names.head, outer=True)

    def _normed(self, b: Build, stream: Stream, name: str) -> tuple[ir.Value, ir.Value]:
        """The layer norm of the stream's sum, and that sum."""
        total = norms.add(b, stream, name)
        return norms.layer_norm(b, total, name, self.shape.hidden_size, self.config.rms_norm_eps), total
