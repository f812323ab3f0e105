"""EXAONE 4: Llama with its norms behind the blocks, normed query and key heads, and, in the models with windows, layers
without one that do not rotate."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from edgellm_export.architectures.llama import Relative, read_llama
from edgellm_export.blocks import norms
from edgellm_export.blocks.build import BatchState, Build, LayerCache, Stream
from edgellm_export.checkpoint.config import FULL, SLIDING, ConfigReader


def parse(config: ConfigReader) -> Exaone4:
    config.must_be("attention_chunk_size", None)
    llama, window = read_llama(config), config.optional_integer("sliding_window")
    default = [FULL] * llama.shape.num_layers
    if window is not None and config.data.get("layer_types") is None:
        pattern = config.integer("sliding_window_pattern")
        default = [SLIDING if (i + 1) % pattern else FULL for i in range(llama.shape.num_layers)]
    windows = config.windows(window, default)
    ropes = [llama.rope if window is None or each is not None else None for each in windows]
    return Exaone4(replace(llama, windows=windows, ropes=ropes, qk_norm=True))


class Exaone4(Relative):
    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        name = f"model.layers.{index}"
        residual = norms.add(b, stream, f"{name}.residual")
        x, present = self._attention(b, residual, f"{name}.self_attn", cache, batch, index)
        x = self._normed(b, x, f"{name}.post_attention_layernorm")
        attended = norms.add(b, Stream(residual, x), f"{name}.self_attn.residual")
        x = self._normed(b, self._mlp(b, attended, f"{name}.mlp"), f"{name}.post_feedforward_layernorm")
        return Stream(attended, x), present

    def _normed(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        return norms.add_rms_norm_of(b, Stream(x), name, self.config.rms_norm_eps)[0]
