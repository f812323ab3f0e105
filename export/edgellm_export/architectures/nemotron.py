"""Nemotron and Minitron: Llama's attention, of whose heads a part is rotated, between LayerNorms that are stored as
weight - 1, and an MLP without a gate."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from edgellm_export.architectures.llama import Relative, read_llama
from edgellm_export.blocks import norms
from edgellm_export.blocks.build import BatchState, Build, LayerCache, Stream
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Nemotron:
    config.no_windows()
    share, kinds = config.number("partial_rotary_factor"), {"default": "default"}
    llama = read_llama(config, share=share, kinds=kinds, eps="norm_eps")
    bias, mlp_bias = config.flag("attention_bias"), config.flag("mlp_bias")
    return Nemotron(replace(llama, qkv_bias=bias, output_bias=bias, mlp_bias=mlp_bias, gated=False))


class Nemotron(Relative):
    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        name = f"model.layers.{index}"
        residual, x = self._normed(b, stream, f"{name}.input_layernorm")
        x, present = self._attention(b, x, f"{name}.self_attn", cache, batch, index)
        residual, x = self._normed(b, Stream(residual, x), f"{name}.post_attention_layernorm")
        return Stream(residual, self._mlp(b, x, f"{name}.mlp")), present

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self._normed(b, stream, "model.norm")[1]

    def _normed(self, b: Build, stream: Stream, name: str) -> tuple[ir.Value, ir.Value]:
        """The stream as one value, and what its norm makes of it."""
        residual, eps = norms.add(b, stream, name), self.config.rms_norm_eps
        return residual, norms.layer_norm(b, residual, name, self.shape.hidden_size, eps, shift=1.0)
