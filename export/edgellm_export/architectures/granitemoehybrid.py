"""Granite 4 without experts and without Mamba: Granite with another MLP, and perhaps without a rope."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from edgellm.errors import UnsupportedModelError
from edgellm_export.architectures.granite import Granite, read_factors, scaled_llama
from edgellm_export.architectures.llama import with_biases
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build
from edgellm_export.checkpoint.config import FULL, ConfigReader


def parse(config: ConfigReader) -> GraniteHybrid:
    config.must_be("num_local_experts", 0, null=False)
    config.must_be("sliding_window", None)
    llama = with_biases(config, scaled_llama(config))
    layers, kinds = llama.shape.num_layers, config.data.get("layer_types")
    if not isinstance(kinds, list) or len(kinds) != layers or not {*kinds} <= {"attention", FULL}:
        raise UnsupportedModelError(
            f"config.json: layer_types is {kinds!r}; edgellm builds this family only with attention in each layer, and "
            "not with Mamba's"
        )
    config.must_be("head_dim", max(1, llama.shape.hidden_size // llama.heads.num_heads))
    if config.data.get("position_embedding_type") != "rope":
        llama = replace(llama, ropes=[None] * layers, shape=replace(llama.shape, ropes=()))
    size = config.integer("shared_intermediate_size")
    return GraniteHybrid(replace(llama, intermediate_size=size), factors=read_factors(config))


class GraniteHybrid(Granite):
    known_to_genai = False  # which expects states of Mamba

    def _plain_mlp(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        c, hidden, name = self.config, self.shape.hidden_size, f"{name.rpartition('.')[0]}.shared_mlp"
        y = blocks.gated(
            b, x, name, c.intermediate_size, hidden, c.hidden_act, bias=False, fused=True, matrix="input_linear"
        )
        return blocks.linear(b, y, f"{name}.output_linear", hidden, c.intermediate_size, bias=False)
