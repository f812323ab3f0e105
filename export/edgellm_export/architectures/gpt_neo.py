"""GPT-Neo: learned positions, scores that are not scaled, and a sliding window on some layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgellm_export.architectures.classic import Classic, Keys, LayerNames, read_classic, with_positions
from edgellm_export.architectures.names import Names
from edgellm_export.checkpoint.config import ConfigReader

MASKS = ("*.attn.attention.bias", "*.attn.attention.masked_bias")  # of causal attention, in older checkpoints
NAMES = Names(prefix="transformer.", embedding="transformer.wte", unused=MASKS)
LAYER = LayerNames(
    layer="transformer.h.{}",
    qkv=("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
    out="attn.attention.out_proj",
    norms=("ln_1", "ln_2"),
    up="mlp.c_fc",
    down="mlp.c_proj",
    final_norm="transformer.ln_f",
    positions="transformer.wpe",
)
KEYS = Keys(layers="num_layers", heads="num_heads", eps="layer_norm_epsilon", act="activation_function")


def parse(config: ConfigReader) -> Classic:
    classic = with_positions(read_classic(config, LAYER, KEYS))
    window = config.integer("window_size")
    windows = [window if kind == "local" else None for kind in _kinds(config, classic.shape.num_layers)]
    return Classic(replace(classic, heads=replace(classic.heads, scale=1.0), windows=windows, qkv_bias=False), NAMES)


def _kinds(config: ConfigReader, layers: int) -> Sequence[str]:
    """Each layer's, "global" or "local", of such as [[["global", "local"], 12]]."""
    given: Any = config.data.get("attention_types")
    try:
        found = [kind for kinds, count in given for _ in range(min(count, layers)) for kind in kinds]
    except (TypeError, ValueError):
        found = []
    fits = len(found) == layers and all(kind in ("global", "local") for kind in found)
    config.require(fits, f"attention_types is {given!r}, expected 'global' or 'local' for each of {layers} layers")
    return found if fits else ["global"] * layers
