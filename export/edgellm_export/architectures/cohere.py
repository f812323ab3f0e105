"""Cohere's Command R: attention and MLP side by side behind one LayerNorm without bias, neighbours of a head rotated
together, scaled logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.architectures.llama import LlamaConfig, Relative, read_llama, rotating_neighbours
from edgellm_export.blocks import attention, norms
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, LayerCache, Stream
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Cohere:
    config.no_windows()
    return Cohere(replace(read_cohere(config), qk_norm=config.flag("use_qk_norm")))


def read_cohere(config: ConfigReader) -> LlamaConfig:
    llama, bias = rotating_neighbours(read_llama(config, eps="layer_norm_eps")), config.flag("attention_bias")
    return replace(llama, qkv_bias=bias, output_bias=bias, head_scale=config.number("logit_scale"))


class Cohere(Relative):
    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        name = f"model.layers.{index}"
        residual = norms.add(b, stream, f"{name}.residual")
        x = self._normed(b, residual, f"{name}.input_layernorm")
        y, present = self._attention(b, x, f"{name}.self_attn", cache, batch, index)
        attended = norms.add(b, Stream(residual, y), f"{name}.self_attn.residual")
        return Stream(attended, self._mlp(b, x, f"{name}.mlp")), present

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self._normed(b, norms.add(b, stream, "model.residual"), "model.norm")

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        return blocks.scale(b, super().head(b, hidden), self.config.head_scale, f"{self.names.head}.scale")

    def _normed(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        return norms.layer_norm(b, x, name, self.shape.hidden_size, self.config.rms_norm_eps, has=("weight",))

    def _qkv(self, b: Build, x: ir.Value, name: str) -> Sequence[ir.Value]:
        c, heads = self.config, self.config.heads
        if not c.qk_norm:
            return super()._qkv(b, x, name)
        q, k, v = attention.separate_qkv(b, x, name, heads, self.shape.hidden_size, bias=c.qkv_bias)
        normed = [
            norms.per_head_layer_norm(b, y, count, heads.head_dim, self._weight(b, side, count), c.rms_norm_eps, side)
            for side, y, count in ((f"{name}.q_norm", q, heads.num_heads), (f"{name}.k_norm", k, heads.num_kv_heads))
        ]
        return [*normed, v]

    def _weight(self, b: Build, name: str, count: int) -> FloatArray:
        weight = b.tensors.take(f"{name}.weight", (count, self.config.heads.head_dim)).rows(0, count)
        return attention.apart(weight.reshape(-1), self.config.heads)
