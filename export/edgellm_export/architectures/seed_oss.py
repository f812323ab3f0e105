"""Seed-OSS: Llama with a key of its own for the bias behind attention."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import Relative, read_llama
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Relative:
    config.no_windows()
    bias, output_bias = config.flag("attention_bias"), config.flag("attention_out_bias")
    mlp_bias = config.flag("mlp_bias")
    return Relative(replace(read_llama(config), qkv_bias=bias, output_bias=output_bias, mlp_bias=mlp_bias))
