"""Gemma 3 (text): Gemma 2 with normed query and key heads, and a rope of its own for the layers with a sliding
window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgellm.errors import UnsupportedModelError
from edgellm_export.architectures.gemma2 import Gemma, read_gemma
from edgellm_export.blocks.rope import Rope, read_rope, request_of
from edgellm_export.checkpoint.config import MAX_POSITIONS, ConfigReader

WIDE, LOCAL = "full_attention", "sliding_attention"
THETAS = {WIDE: "rope_theta", LOCAL: "rope_local_base_freq"}


def parse(config: ConfigReader) -> Gemma:
    gemma = read_gemma(config)
    layers, ropes = gemma.shape.num_layers, ropes_by_kind(config, THETAS, gemma.heads.head_dim)
    pattern = config.integer("sliding_window_pattern")
    default = [LOCAL if (i + 1) % pattern else WIDE for i in range(layers)]
    windows = config.windows(config.optional_integer("sliding_window"), default)
    return Gemma(
        replace(
            gemma,
            windows=windows,
            ropes=[ropes[WIDE if window is None else LOCAL] for window in windows],
            shape=replace(gemma.shape, ropes=tuple(ropes.values())),
            qk_norm=True,
        )
    )


def ropes_by_kind(config: ConfigReader, thetas: Mapping[str, str], head_dim: int) -> Mapping[str, Rope]:
    """The rope of each kind of layer. `thetas`: the keys that have its theta beside `rope_parameters`."""
    positions, asked = config.integer("max_position_embeddings", maximum=MAX_POSITIONS), _parameters(config, thetas)
    return {
        kind: read_rope(config, request_of(asked[kind], config, head_dim=head_dim, positions=positions))
        for kind in thetas
    }


def _parameters(config: ConfigReader, thetas: Mapping[str, str]) -> Mapping[str, Mapping[str, Any]]:
    """What is asked for of each kind of layer; `rope_scaling` is about those that see everything."""
    given, scaling = (config.data.get(key) or {} for key in ("rope_parameters", "rope_scaling"))
    own = [given.get(kind) or {} for kind in thetas] if isinstance(given, dict) else [None]
    if not all(isinstance(part, dict) for part in (*own, scaling)) or {"rope_type", "rope_theta", "type"} & {*given}:
        raise UnsupportedModelError(
            f"config.json: rope_parameters is {given!r} and rope_scaling {scaling!r}; this family has a rope for "
            f"{WIDE} and one for {LOCAL}, expected an object for each in rope_parameters"
        )
    if "type" in scaling and "rope_type" not in scaling:
        raise UnsupportedModelError(
            f"config.json: rope_scaling is {scaling!r}, whose type transformers 5 does not read; call it rope_type"
        )
    found = {kind: {"rope_theta": config.number(theta), **(given.get(kind) or {})} for kind, theta in thetas.items()}
    found[WIDE] |= scaling
    return {kind: {**part, "truncate": given.get("truncate", True)} for kind, part in found.items()}
