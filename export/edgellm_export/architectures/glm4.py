"""GLM-4 of 2025 (0414): GLM with a norm behind each block, too."""

from __future__ import annotations

from edgellm_export.architectures.glm import read_glm
from edgellm_export.architectures.llama import Relative
from edgellm_export.blocks.build import BatchState, Build, LayerCache, Stream
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> GLM4:
    return GLM4(read_glm(config))


class GLM4(Relative):
    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        name = f"model.layers.{index}"
        x, stream = self._norm(b, stream, f"{name}.input_layernorm")
        x, present = self._attention(b, x, f"{name}.self_attn", cache, batch, index)
        x, _ = self._norm(b, Stream(x), f"{name}.post_self_attn_layernorm")
        x, stream = self._norm(b, Stream(stream.residual, x), f"{name}.post_attention_layernorm")
        x = self._mlp(b, x, f"{name}.mlp")
        x, _ = self._norm(b, Stream(x), f"{name}.post_mlp_layernorm")
        return Stream(stream.residual, x), present
