"""ERNIE 4.5, the dense models: Llama of whose heads neighbours rotate together."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import Relative, read_llama, rotating_neighbours
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Relative:
    config.no_windows()
    llama, bias = rotating_neighbours(read_llama(config)), config.flag("use_bias")
    return Relative(replace(llama, qkv_bias=bias, output_bias=bias, mlp_bias=bias))
