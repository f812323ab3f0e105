"""OLMo 2: Llama with norms behind the blocks, not in front of them, and over all heads of the queries and keys."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgellm_export.architectures.llama import Llama, read_llama, with_biases
from edgellm_export.blocks import attention, norms
from edgellm_export.blocks.build import BatchState, Build, LayerCache, Stream
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Olmo2:
    config.no_windows()
    return Olmo2(with_biases(config, read_llama(config)))


class NormsBehind(Llama):
    """Llama with a norm behind each block, and none in front."""

    known_to_genai = False

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        name = f"model.layers.{index}"
        residual = norms.add(b, stream, f"{name}.residual")
        x, present = self._attention(b, residual, f"{name}.self_attn", cache, batch, index)
        x, _ = self._norm(b, Stream(x), f"{name}.post_attention_layernorm")
        residual = norms.add(b, Stream(residual, x), f"{name}.self_attn.residual")
        x, _ = self._norm(b, Stream(self._mlp(b, residual, f"{name}.mlp")), f"{name}.post_feedforward_layernorm")
        return Stream(residual, x), present


class Olmo2(NormsBehind):
    def _qkv(self, b: Build, x: ir.Value, name: str) -> Sequence[ir.Value]:
        c, hidden = self.config, self.shape.hidden_size
        return attention.wholly_normed_qkv(b, x, name, c.heads, hidden, bias=c.qkv_bias, eps=c.rms_norm_eps)
