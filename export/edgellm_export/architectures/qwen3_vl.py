"""The text model of Qwen3-VL: Qwen3 with M-RoPE, whose sections have equal positions for text alone."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import Relative, read_llama
from edgellm_export.architectures.qwen2_vl import M_ROPE
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Relative:
    config.no_windows()
    bias = config.flag("attention_bias")
    return Relative(replace(read_llama(config, kinds=M_ROPE), qkv_bias=bias, output_bias=bias, qk_norm=True))
