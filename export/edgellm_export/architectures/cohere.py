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
from edgellm_export.blocks.build import Build, Stream
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Cohere:
    config.no_windows()
    return Cohere(replace(read_cohere(config), qk_norm=config.flag("use_qk_norm")))


def read_cohere(config: ConfigReader) -> LlamaConfig:
    llama, bias = rotating_neighbours(read_llama(config, eps="layer_norm_eps")), config.flag("attention_bias")
    return replace(llama, qkv_bias=bias, output_bias=bias, head_scale=config.number("logit_scale"), parallel=True)


class Cohere(Relative):
    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        return blocks.scale(b, super().head(b, hidden), self.config.head_scale, f"{self.names.head}.scale")

    def _norm(self, b: Build, stream: Stream, name: str) -> tuple[ir.Value, Stream]:
        return norms.add_layer_norm(b, stream, name, self.shape.hidden_size, self.config.rms_norm_eps, has=("weight",))

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
