"""Helium: Llama of whose heads neighbours rotate together, without a bias behind attention."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import Relative, read_llama, rotating_neighbours
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Relative:
    config.no_windows()
    llama = rotating_neighbours(read_llama(config))
    query, hidden = llama.heads.query_size, llama.shape.hidden_size
    config.require(query == hidden, f"the heads' size is {query} together, expected hidden_size, {hidden}")
    return Relative(replace(llama, qkv_bias=config.flag("attention_bias"), mlp_bias=config.flag("mlp_bias")))
