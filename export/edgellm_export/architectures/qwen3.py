"""Qwen3: Qwen2 with RMS-normed query and key heads."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import Llama, read_llama
from edgellm_export.architectures.qwen2 import qwen_windows
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Llama:
    bias = config.flag("attention_bias")
    llama = replace(read_llama(config), qkv_bias=bias, output_bias=bias, qk_norm=True)
    return Llama(replace(llama, windows=qwen_windows(config, llama.shape.num_layers)))
