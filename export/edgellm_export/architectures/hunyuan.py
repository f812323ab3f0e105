"""Hunyuan's dense models: Llama whose query and key heads are normed once they are rotated, by frequencies for a longer
context that `alpha` stretches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgellm_export.architectures.llama import LlamaConfig, Relative, read_heads, read_llama
from edgellm_export.blocks import attention, norms
from edgellm_export.blocks.build import BatchState, Build, LayerCache
from edgellm_export.blocks.rotary import rotate
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Hunyuan:
    config.no_windows()
    llama, bias = _read(config), config.flag("attention_bias")
    shape = replace(llama.shape, learned_positions=True)
    return Hunyuan(replace(llama, shape=shape, qkv_bias=bias, output_bias=bias))


def _read(config: ConfigReader) -> LlamaConfig:
    """`alpha` is a larger base from the first token on, whatever the length."""
    key = "rope_scaling" if config.data.get("rope_scaling") else "rope_parameters"
    given: Any = config.data.get(key)
    if not isinstance(given, Mapping) or given.get("rope_type", given.get("type")) != "dynamic":
        return read_llama(config)
    values = ConfigReader(given, config.problems)
    config.require(values.number("factor", 1.0) == 1, f"{key}'s factor is {given.get('factor')!r}, expected 1 or none")
    theta = values.number("rope_theta", config.number("rope_theta"))
    size = max(read_heads(config, config.integer("hidden_size")).head_dim, 4)
    theta *= values.number("alpha") ** (size / (size - 2))
    return read_llama(replace(config, data={**config.data, "rope_theta": theta, key: None, "rope_parameters": None}))


class Hunyuan(Relative):
    def _attention(
        self, b: Build, x: ir.Value, name: str, cache: LayerCache, batch: BatchState, index: int
    ) -> tuple[ir.Value, LayerCache]:
        """The weights of both norms go to the queries: keys are then only as long as others, at every position, and an
        int8 cache is right at all of them."""
        c, heads, context = self.config, self.config.heads, self.shape.context_length
        qkv = rotate(b, self._qkv(b, x, name), heads, batch, c.rope, context, name)
        query, key = (b.vector(f"{name}.{side}_layernorm.weight", heads.head_dim) for side in ("query", "key"))
        sides = (
            (qkv[0], heads.num_heads, query * key, "q_norm"),
            (qkv[1], heads.num_kv_heads, np.ones_like(key), "k_norm"),
        )
        normed = [
            norms.per_head_rms_norm(b, y, count, heads.head_dim, weight, c.rms_norm_eps, f"{name}.{side}")
            for y, count, weight, side in sides
        ]
        y, present = attention.grouped_query(b, [*normed, qkv[2]], heads, cache, batch, None, context, name)
        return self._attended(b, y, name), present
