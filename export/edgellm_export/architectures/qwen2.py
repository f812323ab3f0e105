"""Qwen2 and Qwen2.5: Llama with biases on q, k and v, and sliding windows from some layer on where they are switched
on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgellm_export.architectures.llama import Llama, read_llama
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Llama:
    llama = read_llama(config)
    return Llama(replace(llama, qkv_bias=True, windows=qwen_windows(config, llama.shape.num_layers)))


def qwen_windows(config: ConfigReader, layers: int) -> Sequence[int | None]:
    """`max_window_layers` layers see everything; those after it a window, if `use_sliding_window`."""
    window = config.optional_integer("sliding_window") if config.flag("use_sliding_window") else None
    first = config.integer("max_window_layers", minimum=0)
    default = ["sliding_attention" if window and i >= first else "full_attention" for i in range(layers)]
    return config.windows(window, default)
