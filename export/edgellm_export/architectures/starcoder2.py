"""StarCoder2: Llama's attention, with biases, between LayerNorms, and an MLP without a gate."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from edgellm_export.architectures.llama import Llama, read_llama
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks import norms
from edgellm_export.blocks.build import Build, Stream
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> StarCoder2:
    llama = read_llama(config, eps="norm_epsilon")
    bias, window = config.flag("use_bias"), config.optional_integer("sliding_window")
    config.all_layers_see(window)
    windows = [window] * llama.shape.num_layers
    return StarCoder2(replace(llama, qkv_bias=bias, output_bias=bias, mlp_bias=bias, windows=windows))


class StarCoder2(Llama):
    known_to_genai = False

    def _norm(self, b: Build, stream: Stream, name: str) -> tuple[ir.Value, Stream]:
        return norms.add_layer_norm(b, stream, name, self.shape.hidden_size, self.config.rms_norm_eps)

    def _mlp(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        c, hidden = self.config, self.shape.hidden_size
        x = blocks.linear(b, x, f"{name}.c_fc", c.intermediate_size, hidden, bias=c.mlp_bias)
        x = blocks.activate(b, x, c.hidden_act, name)
        return blocks.linear(b, x, f"{name}.c_proj", hidden, c.intermediate_size, bias=c.mlp_bias)
