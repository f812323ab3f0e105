"""StableLM: Llama with LayerNorms, a part of each head rotated, and attention and MLP perhaps side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgellm_export.architectures.llama import Llama, read_llama
from edgellm_export.blocks import attention, norms
from edgellm_export.blocks.build import Build, Stream
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> StableLm:
    config.no_windows()
    llama = read_llama(config, share=config.number("partial_rotary_factor"), eps="layer_norm_eps")
    config.must_be("head_dim", max(1, llama.shape.hidden_size // llama.heads.num_heads))
    bias, parallel = config.flag("use_qkv_bias"), config.flag("use_parallel_residual")
    return StableLm(replace(llama, qkv_bias=bias, parallel=parallel, qk_norm=config.flag("qk_layernorm")))


class StableLm(Llama):
    known_to_genai = False

    def _norm(self, b: Build, stream: Stream, name: str) -> tuple[ir.Value, Stream]:
        return norms.add_layer_norm(b, stream, name, self.shape.hidden_size, self.config.rms_norm_eps)

    def _qkv(self, b: Build, x: ir.Value, name: str) -> Sequence[ir.Value]:
        """Where heads are normed, each has weights of its own."""
        c, hidden = self.config, self.shape.hidden_size
        if not c.qk_norm:
            return super()._qkv(b, x, name)
        q, k, v = attention.separate_qkv(b, x, name, c.heads, hidden, bias=c.qkv_bias)
        counts = (c.heads.num_heads, c.heads.num_kv_heads)
        normed = [
            self._per_head(b, y, count, f"{name}.{side}_layernorm.norms")
            for side, y, count in zip("qk", (q, k), counts, strict=True)
        ]
        return [*normed, v]

    def _per_head(self, b: Build, x: ir.Value, count: int, name: str) -> ir.Value:
        size, eps = self.config.heads.head_dim, self.config.rms_norm_eps
        weight = np.concatenate([b.vector(f"{name}.{head}.weight", size) for head in range(count)])
        return norms.per_head_layer_norm(b, x, count, size, weight, eps, name)
