"""The text models of Qwen2-VL and Qwen2.5-VL: Qwen2 with M-RoPE, whose sections have equal positions for text alone."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import Relative, read_llama
from edgellm_export.architectures.qwen2 import qwen_windows
from edgellm_export.blocks.rope import KINDS
from edgellm_export.checkpoint.config import ConfigReader

M_ROPE = {**KINDS, "mrope": "default"}


def parse(config: ConfigReader) -> Relative:
    llama = read_llama(config, kinds=M_ROPE)
    return Relative(replace(llama, qkv_bias=True, windows=qwen_windows(config, llama.shape.num_layers)))
