"""BitNet b1.58: Llama with a norm in front of the layer behind attention and of the one that ends the MLP, and a
squared ReLU in its gate."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from edgellm_export.architectures.llama import Relative, read_llama
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks import norms
from edgellm_export.blocks.build import Build
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> BitNet:
    config.no_windows()
    llama, bias = read_llama(config), config.flag("attention_bias")
    query, hidden = llama.heads.query_size, llama.shape.hidden_size
    config.require(query == hidden, f"the heads' size is {query} together, expected hidden_size, {hidden}")
    return BitNet(replace(llama, qkv_bias=bias, output_bias=bias))


class BitNet(Relative):
    def _attended(self, b: Build, y: ir.Value, name: str) -> ir.Value:
        return super()._attended(b, self._normed(b, y, f"{name}.attn_sub_norm", self.shape.hidden_size), name)

    def _mlp(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        c, hidden, size = self.config, self.shape.hidden_size, self.config.intermediate_size
        y = blocks.gated(b, x, name, size, hidden, c.hidden_act, bias=False, fused=False)
        y = self._normed(b, y, f"{name}.ffn_sub_norm", size)
        return blocks.linear(b, y, f"{name}.down_proj", hidden, size, bias=False)

    def _normed(self, b: Build, x: ir.Value, name: str, size: int) -> ir.Value:
        return norms.rms_norm(b, x, b.vector(f"{name}.weight", size), self.config.rms_norm_eps, name)
