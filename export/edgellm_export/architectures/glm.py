"""GLM-4 of 2024 (glm-4-9b): Llama with biases on q, k and v, of whose heads half is rotated, neighbours together."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import LlamaConfig, Relative, read_llama, rotating_neighbours
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Relative:
    return Relative(read_glm(config))


def read_glm(config: ConfigReader) -> LlamaConfig:
    config.no_windows()
    llama = rotating_neighbours(read_llama(config, share=config.number("partial_rotary_factor")))
    return replace(llama, qkv_bias=config.flag("attention_bias"), fused_mlp=True)
