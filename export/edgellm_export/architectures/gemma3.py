"""Gemma 3 (text): Gemma 2 with normed query and key heads, and a rope of its own for the layers with a sliding
window."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.gemma2 import Gemma, read_gemma
from edgellm_export.blocks.rope import default_rope, read_rope
from edgellm_export.checkpoint.config import ConfigReader


def parse(config: ConfigReader) -> Gemma:
    config.must_be("use_bidirectional_attention", False)
    gemma = read_gemma(config, positions=131072)
    layers, head_dim = gemma.shape.num_layers, gemma.heads.head_dim
    wide = read_rope(
        config, theta=config.number("rope_theta", 1e6), rotary_dim=head_dim, max_positions=gemma.shape.context_length
    )
    local = default_rope(config.number("rope_local_base_freq", 10000.0), head_dim)
    window = config.integer("sliding_window", 4096)
    pattern = config.integer("sliding_window_pattern", 6)
    default = ["sliding_attention" if (i + 1) % pattern else "full_attention" for i in range(layers)]
    sliding = [kind == "sliding_attention" for kind in config.layer_types(layers, default)]
    return Gemma(
        replace(
            gemma,
            windows=[window if is_sliding else None for is_sliding in sliding],
            ropes=[local if is_sliding else wide for is_sliding in sliding],
            shape=replace(gemma.shape, ropes=(wide, local)),
            qk_norm=True,
        )
    )
