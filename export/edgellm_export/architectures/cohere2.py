"""Cohere's Command R7B and Command A: Command R with windows on most layers, which alone rotate."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.cohere import Cohere, read_cohere
from edgellm_export.checkpoint.config import FULL, SLIDING, ConfigReader


def parse(config: ConfigReader) -> Cohere:
    config.must_be("attention_chunk_size", None)
    cohere, pattern = read_cohere(config), config.integer("sliding_window_pattern")
    default = [SLIDING if (i + 1) % pattern else FULL for i in range(cohere.shape.num_layers)]
    windows = config.windows(config.optional_integer("sliding_window"), default)
    return Cohere(replace(cohere, windows=windows, ropes=[None if each is None else cohere.rope for each in windows]))
