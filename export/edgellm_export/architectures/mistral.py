"""Mistral: Llama with a sliding window on every layer (early versions) or none."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import Llama, read_llama
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Llama:
    llama = read_llama(config)
    return Llama(replace(llama, windows=[config.optional_integer("sliding_window")] * llama.shape.num_layers))
