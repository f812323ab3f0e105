"""EXAONE 4: Llama with its norms behind the blocks, normed query and key heads, and, in the models with windows, layers
without one that do not rotate."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import read_llama
from edgellm_export.architectures.olmo2 import NormsBehind
from edgellm_export.checkpoint.config import FULL, SLIDING, ConfigReader


def parse(config: ConfigReader) -> NormsBehind:
    config.must_be("attention_chunk_size", None)
    llama, window = read_llama(config), config.optional_integer("sliding_window")
    default = [FULL] * llama.shape.num_layers
    if window is not None and config.data.get("layer_types") is None:
        pattern = config.integer("sliding_window_pattern")
        default = [SLIDING if (i + 1) % pattern else FULL for i in range(llama.shape.num_layers)]
    windows = config.windows(window, default)
    ropes = [llama.rope if window is None or each is not None else None for each in windows]
    return NormsBehind(replace(llama, windows=windows, ropes=ropes, qk_norm=True))
