"""Rotary position embeddings: every scaling of config.json as inverse frequencies.

Formulas follow the papers (linear: Chen et al. 2306.15595; NTK-aware and YaRN: 2309.00071; LongRoPE: 2402.13753;
llama3: the Llama 3.1 release) as Hugging Face transformers evaluates them, in float32 where it does, so that tables
agree to the last bits.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgellm.errors import UnsupportedModelError, nearest
from edgellm.types import FloatArray
from edgellm_export.checkpoint.config import ConfigReader, is_positive


@dataclass(frozen=True, eq=False)
class StaticRope:
    """Frequencies that never change: [rotary_dim / 2]. cos and sin are multiplied by `attention_factor`."""

    inv_freq: FloatArray
    attention_factor: float = 1.0

    def tables(self, positions: int) -> tuple[FloatArray, FloatArray]:
        """cos and sin, each [positions, rotary_dim / 2]."""
        angles = np.arange(positions, dtype=np.float32)[:, None] * self.inv_freq
        factor = np.float32(self.attention_factor)
        return np.cos(angles) * factor, np.sin(angles) * factor


@dataclass(frozen=True, eq=False)
class DynamicRope:
    """NTK scaling by the row's length n: base * (factor * n / trained_length - (factor - 1)) ** (d / (d - 2)), n >=
    trained_length."""

    base: float
    rotary_dim: int
    factor: float
    trained_length: int


@dataclass(frozen=True, eq=False)
class LongRope:
    """`short` frequencies up to `trained_length` tokens in the row, `long` ones beyond. [rotary_dim / 2] each."""

    short: FloatArray
    long: FloatArray
    trained_length: int
    attention_factor: float


Rope = StaticRope | DynamicRope | LongRope


def default_rope(theta: float, rotary_dim: int) -> StaticRope:
    return StaticRope(_inverse_frequencies(theta, rotary_dim))


def read_rope(
    config: ConfigReader, *, theta: float, rotary_dim: int, max_positions: int, long_rope: bool = False
) -> Rope:
    """The rope that `rope_scaling` asks for; `long_rope` says whether the family has LongRoPE."""
    scaling = config.data.get("rope_scaling")
    factors = config.data.get("rope_freq_factors")
    if factors is not None:
        return StaticRope(
            _inverse_frequencies(theta, rotary_dim) / _factors(config, "rope_freq_factors", rotary_dim // 2)
        )
    if scaling is None:
        return default_rope(theta, rotary_dim)
    if not isinstance(scaling, dict):
        config.problems.append(f"rope_scaling is {scaling!r}, expected an object or null")
        return default_rope(theta, rotary_dim)
    kind = scaling.get("rope_type", scaling.get("type"))
    known = ["default", "linear", "dynamic", "yarn", "llama3", *(["longrope"] if long_rope else [])]
    kind = {"su": "longrope"}.get(str(kind), str(kind))
    if kind not in known:
        raise UnsupportedModelError(
            f"config.json: rope_scaling has the type {kind!r}, which edgellm does not build here; "
            f"{nearest(kind, known)}"
        )
    values = ConfigReader(scaling, config.problems)
    match kind:
        case "linear":
            return StaticRope(_inverse_frequencies(theta, rotary_dim) / np.float32(values.number("factor")))
        case "dynamic":
            return DynamicRope(theta, rotary_dim, values.number("factor"), max_positions)
        case "yarn":
            return _yarn(values, theta, rotary_dim, max_positions)
        case "llama3":
            return _llama3(values, theta, rotary_dim)
        case "longrope":
            return _longrope(values, config, theta, rotary_dim, max_positions)
    return default_rope(theta, rotary_dim)


def _inverse_frequencies(theta: float, rotary_dim: int) -> FloatArray:
    exponents = np.arange(0, rotary_dim // 2 * 2, 2, dtype=np.float32) / np.float32(rotary_dim)
    return np.asarray(np.float32(1) / np.power(np.float32(theta), exponents), np.float32)


def _llama3(values: ConfigReader, theta: float, rotary_dim: int) -> StaticRope:
    factor, low = values.number("factor"), values.number("low_freq_factor")
    high, trained = values.number("high_freq_factor"), values.integer("original_max_position_embeddings")
    plain = _inverse_frequencies(theta, rotary_dim)
    wavelength = np.float32(2 * math.pi) / plain
    smooth = (np.float32(trained) / wavelength - np.float32(low)) / np.float32(max(high - low, 1e-9))
    blended = (1 - smooth) * plain / np.float32(factor) + smooth * plain
    scaled = np.where(wavelength > trained / low, plain / np.float32(factor), plain)
    between = (wavelength >= trained / high) & (wavelength <= trained / low)
    return StaticRope(np.where(between, blended, scaled).astype(np.float32))


def _yarn(values: ConfigReader, theta: float, rotary_dim: int, max_positions: int) -> StaticRope:
    factor = values.number("factor")
    values.require(theta > 1, f"rope_theta is {theta}, expected more than 1 for a yarn rope")
    theta = max(theta, 1.5)
    trained = values.optional_integer("original_max_position_embeddings") or max_positions
    fast, slow = values.number("beta_fast", 32.0), values.number("beta_slow", 1.0)
    low, high = (_yarn_dimension(r, theta, rotary_dim, trained) for r in (fast, slow))
    if values.flag("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    width = high - low if high != low else 0.001
    ramp = np.clip((np.arange(rotary_dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(width), 0, 1)
    plain = _inverse_frequencies(theta, rotary_dim)
    mixed = plain / np.float32(factor) * ramp + plain * (1 - ramp)
    return StaticRope(mixed.astype(np.float32), _yarn_attention_factor(values, factor))


def _yarn_dimension(rotations: float, theta: float, rotary_dim: int, trained: int) -> float:
    """The dimension that turns `rotations` times within the trained length."""
    turns = max(trained / (rotations * 2 * math.pi), sys.float_info.min)
    return rotary_dim * math.log(turns) / (2 * math.log(theta))


def _yarn_attention_factor(values: ConfigReader, factor: float) -> float:
    def magnitude(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    given = values.optional_number("attention_factor")
    if given is not None:
        return given
    mscale, mscale_all = (values.number(key, 0.0, positive=False) for key in ("mscale", "mscale_all_dim"))
    whole = magnitude(mscale_all)
    return magnitude(mscale) / whole if mscale and mscale_all and whole else magnitude(1)


def _longrope(
    values: ConfigReader, config: ConfigReader, theta: float, rotary_dim: int, max_positions: int
) -> LongRope:
    trained = config.optional_integer("original_max_position_embeddings") or values.optional_integer(
        "original_max_position_embeddings"
    )
    trained = trained or max_positions
    factor = max_positions / trained if trained != max_positions else values.number("factor", 1.0)
    given = values.optional_number("attention_factor")
    values.require(trained > 1, f"original_max_position_embeddings is {trained}, expected more than 1")
    trained = max(trained, 2)
    attention_factor = given or (math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0)
    plain = _inverse_frequencies(theta, rotary_dim)
    short, long = (_factors(values, key, rotary_dim // 2) for key in ("short_factor", "long_factor"))
    return LongRope(plain / short, plain / long, trained, attention_factor)


def _factors(values: ConfigReader, key: str, count: int) -> FloatArray:
    value: Any = values.data.get(key)
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    if listed and len(value) == count and all(map(is_positive, value)):
        return np.array(value, np.float32)
    values.problems.append(f"{key} is {value!r}, expected {count} positive numbers")
    return np.ones(count, np.float32)


def rotary_dim(rope: Rope) -> int:
    """How many of a head's channels are rotated: the first ones, channel i together with i + half of them."""
    match rope:
        case StaticRope():
            return 2 * len(rope.inv_freq)
        case DynamicRope():
            return rope.rotary_dim
        case LongRope():
            return 2 * len(rope.short)


def turned_by_attention(rope: Rope) -> bool:
    """Whether GroupQueryAttention rotates by this rope itself: it takes fixed tables, for multiples of 16 channels."""
    return isinstance(rope, StaticRope) and rotary_dim(rope) % 16 == 0


def needs_positions(ropes: Sequence[Rope | None]) -> bool:
    """Whether queries and keys are rotated before they come to attention, by the positions of their tokens."""
    return any(rope is not None and not turned_by_attention(rope) for rope in ropes)


def needs_length_input(ropes: Sequence[Rope | None]) -> bool:
    """Whether some table depends on the length of the row."""
    return any(isinstance(rope, DynamicRope | LongRope) for rope in ropes)


__all__ = [
    "DynamicRope",
    "LongRope",
    "Rope",
    "StaticRope",
    "default_rope",
    "needs_length_input",
    "needs_positions",
    "read_rope",
    "rotary_dim",
    "turned_by_attention",
]
