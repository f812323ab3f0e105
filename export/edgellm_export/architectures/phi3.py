"""Phi-3 and Phi-4: Llama with fused matrices in the checkpoint, LongRoPE, and a cache that is computed anew when it
switches."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.llama import Llama, read_llama
from edgellm_export.blocks.rope import LongRope
from edgellm_export.checkpoint.config import ConfigReader

# The kinds of rope by their names, of which some are older.
KINDS = {"default": "default", "longrope": "longrope", "su": "longrope", "yarn": "longrope"}


def parse(config: ConfigReader) -> Llama:
    share = config.number("partial_rotary_factor")
    llama = read_llama(config, share=share, kinds=KINDS)
    window = config.optional_integer("sliding_window")
    config.all_layers_see(window)
    windows = [window] * llama.shape.num_layers
    limit = llama.rope.trained_length if isinstance(llama.rope, LongRope) else None
    return Llama(replace(llama, fused=True, windows=windows, shape=replace(llama.shape, recompute_beyond=limit)))
