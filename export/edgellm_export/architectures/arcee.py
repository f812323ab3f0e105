"""Arcee's AFM: Llama with a squared ReLU and no gate."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import Relative, read_llama
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Relative:
    config.no_windows()
    bias, mlp_bias = config.flag("attention_bias"), config.flag("mlp_bias")
    return Relative(replace(read_llama(config), qkv_bias=bias, output_bias=bias, mlp_bias=mlp_bias, gated=False))
