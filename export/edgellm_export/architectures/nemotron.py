"""Nemotron and Minitron: Llama's attention, of whose heads a part is rotated, between LayerNorms that are stored as
weight - 1, and an MLP without a gate."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from edgellm_export.architectures.llama import Relative, read_llama
from edgellm_export.blocks import norms
from edgellm_export.blocks.build import Build, Stream
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Nemotron:
    config.no_windows()
    share, kinds = config.number("partial_rotary_factor"), {"default": "default"}
    llama = read_llama(config, share=share, kinds=kinds, eps="norm_eps")
    bias, mlp_bias = config.flag("attention_bias"), config.flag("mlp_bias")
    return Nemotron(replace(llama, qkv_bias=bias, output_bias=bias, mlp_bias=mlp_bias, gated=False))


class Nemotron(Relative):
    def _norm(self, b: Build, stream: Stream, name: str) -> tuple[ir.Value, Stream]:
        return norms.add_layer_norm(b, stream, name, self.shape.hidden_size, self.config.rms_norm_eps, shift=1.0)
