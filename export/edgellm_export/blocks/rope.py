"""Rotary position embeddings: every scaling of config.json as inverse frequencies.

Formulas follow the papers (linear: Chen et al. 2306.15595; NTK-aware and YaRN: 2309.00071; LongRoPE: 2402.13753;
llama3: the Llama 3.1 release) as Hugging Face transformers evaluates them, in float32 where it does, so that tables
agree to the last bits.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgellm.errors import UnsupportedModelError, nearest
from edgellm.types import FloatArray
from edgellm_export.checkpoint.config import MAX_POSITIONS, ConfigReader, is_positive

KINDS = {name: name for name in ("default", "linear", "dynamic", "yarn", "llama3", "proportional")}
BEYOND_REASON = 10**15  # tokens


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


@dataclass(frozen=True)
class RopeRequest:
    """What config.json asks for, as transformers 5 settles it: one object, `values`, with all keys about rotary
    positions. `positions`: max_position_embeddings. `trained_length`: tokens before any stretch. `context_length`:
    tokens that the model takes, as some kinds stretch `positions` and others say it with the stretch."""

    values: ConfigReader
    kind: str
    theta: float
    head_dim: int
    rotary_dim: int
    positions: int
    trained_length: int
    context_length: int


def rope_request(
    config: ConfigReader, *, head_dim: int, positions: int, theta: float, share: float | None = None
) -> RopeRequest:
    """`rope_scaling`, where transformers before 5 puts it, or else `rope_parameters`. Both win over `theta` and
    `share`, the keys beside them; None: the family rotates whole heads."""
    given = _object(config, "rope_scaling") or _object(config, "rope_parameters")
    if nested := [name for name in ("full_attention", "sliding_attention") if name in given]:
        raise UnsupportedModelError(
            f"config.json: rope_parameters holds {nested[0]}, and all layers of this family have one rope; "
            "expected rope_type and rope_theta themselves"
        )
    original = config.data.get("original_max_position_embeddings")
    beside = {} if original is None else {"original_max_position_embeddings": original}
    whole = config.data.get("partial_rotary_factor", 1.0)
    found = {"rope_theta": theta, "partial_rotary_factor": whole if share is None else share, **given, **beside}
    return request_of(found, config, head_dim=head_dim, positions=positions, partial=share is not None)


def request_of(
    given: Mapping[str, Any], config: ConfigReader, *, head_dim: int, positions: int, partial: bool = False
) -> RopeRequest:
    """A request for `given`, whose problems are those of `config`. `partial`: heads may be rotated in part."""
    values = ConfigReader(given, config.problems)
    kind = str(given.get("rope_type", given.get("type", "default")))
    share = values.number("partial_rotary_factor", 1.0)
    if share != 1 and kind != "proportional" and not partial:
        raise UnsupportedModelError(
            f"config.json: partial_rotary_factor is {share:g}, and this family rotates whole heads, also in "
            "transformers; leave it out, or say with model_type which family it is"
        )
    config.require(share <= 1, f"partial_rotary_factor is {share:g}, expected at most 1")
    trained = values.integer("original_max_position_embeddings", positions)
    context = _context(kind, given.get("factor"), positions, trained)
    config.require(context <= MAX_POSITIONS, f"rope_scaling stretches the context to {context} tokens")
    theta, rotary_dim = (
        values.number("rope_theta"),
        head_dim if kind == "proportional" else int(head_dim * min(share, 1.0)),
    )
    return RopeRequest(values, kind, theta, head_dim, rotary_dim, positions, trained, context)


def _context(kind: str, factor: object, positions: int, trained: int) -> int:
    if not is_positive(factor) or factor < 1 or kind not in ("linear", "dynamic", "yarn"):
        return positions
    return max(positions, _stretched(trained if kind == "yarn" else positions, factor))


def _stretched(length: int, factor: float) -> int:
    """What is beyond reason stays so, whatever the factor, and stays a number."""
    return int(min(length * factor, BEYOND_REASON)) if length <= MAX_POSITIONS else length


def _object(config: ConfigReader, key: str) -> Mapping[str, Any]:
    value = config.data.get(key)
    config.require(value is None or isinstance(value, dict), f"{key} is {value!r}, expected an object or null")
    return value if isinstance(value, dict) else {}


def read_rope(config: ConfigReader, request: RopeRequest, kinds: Mapping[str, str] = KINDS) -> Rope:
    """The rope that is asked for; `kinds` are those that the family has, by their names in config.json."""
    if request.kind not in kinds:
        raise UnsupportedModelError(
            f"config.json: rope_scaling has the type {request.kind!r}, which edgellm does not build here; "
            f"{nearest(request.kind, kinds)}"
        )
    values, theta, rotary_dim = request.values, request.theta, request.rotary_dim
    if config.data.get("rope_freq_factors") is not None:
        factors = _factors(config, "rope_freq_factors", rotary_dim // 2)
        return StaticRope(_inverse_frequencies(theta, rotary_dim) / factors)
    match kinds[request.kind]:
        case "linear":
            return StaticRope(_inverse_frequencies(theta, rotary_dim) / np.float32(values.number("factor")))
        case "dynamic":
            return DynamicRope(theta, rotary_dim, values.number("factor"), request.positions)
        case "yarn":
            return _yarn(values, theta, rotary_dim, request)
        case "llama3":
            return _llama3(values, theta, rotary_dim, request.trained_length)
        case "longrope":
            return _longrope(values, theta, rotary_dim, request)
        case "proportional":
            return _proportional(values, theta, request.head_dim)
    return StaticRope(_inverse_frequencies(theta, rotary_dim))


def plain_rope(theta: float, rotary_dim: int) -> StaticRope:
    """Of families that have no other."""
    return StaticRope(_inverse_frequencies(theta, rotary_dim))


def _inverse_frequencies(theta: float, rotary_dim: int) -> FloatArray:
    exponents = np.arange(0, rotary_dim // 2 * 2, 2, dtype=np.float32) / np.float32(rotary_dim)
    return np.asarray(np.float32(1) / np.power(np.float32(theta), exponents), np.float32)


def _proportional(values: ConfigReader, theta: float, head_dim: int) -> StaticRope:
    """A share of the frequencies of a whole head; the other pairs of channels stand still."""
    turning = int(values.number("partial_rotary_factor", 1.0) * head_dim // 2)
    frequencies = _inverse_frequencies(theta, head_dim) / np.float32(values.number("factor", 1.0))
    frequencies[turning:] = 0
    return StaticRope(frequencies)


def _llama3(values: ConfigReader, theta: float, rotary_dim: int, trained: int) -> StaticRope:
    factor, low = values.number("factor"), values.number("low_freq_factor")
    high = values.number("high_freq_factor")
    plain = _inverse_frequencies(theta, rotary_dim)
    wavelength = np.float32(2 * math.pi) / plain
    smooth = (np.float32(trained) / wavelength - np.float32(low)) / np.float32(max(high - low, 1e-9))
    blended = (1 - smooth) * plain / np.float32(factor) + smooth * plain
    scaled = np.where(wavelength > trained / low, plain / np.float32(factor), plain)
    between = (wavelength >= trained / high) & (wavelength <= trained / low)
    return StaticRope(np.where(between, blended, scaled).astype(np.float32))


def _yarn(values: ConfigReader, theta: float, rotary_dim: int, request: RopeRequest) -> StaticRope:
    trained = request.trained_length
    factor = values.number("factor", request.positions / trained if "factor" in values.data else None)
    values.require(theta > 1, f"rope_theta is {theta}, expected more than 1 for a yarn rope")
    theta = max(theta, 1.5)
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


def yarn_magnitude(config: ConfigReader) -> float:
    """What DeepSeek multiplies queries and keys by, each, where its rope is stretched, in whatever way."""
    given = _object(config, "rope_scaling") or _object(config, "rope_parameters")
    values = ConfigReader(given, config.problems)
    if given.get("rope_type", given.get("type", "default")) == "default" or not given.get("mscale_all_dim"):
        return 1.0
    return _magnitude(values.number("factor"), values.number("mscale_all_dim", positive=False))


def _magnitude(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _yarn_attention_factor(values: ConfigReader, factor: float) -> float:
    given = values.optional_number("attention_factor")
    if given is not None:
        return given
    mscale, mscale_all = (values.number(key, 0.0, positive=False) for key in ("mscale", "mscale_all_dim"))
    whole = _magnitude(factor, mscale_all)
    return _magnitude(factor, mscale) / whole if mscale and mscale_all and whole else _magnitude(factor, 1)


def _longrope(values: ConfigReader, theta: float, rotary_dim: int, request: RopeRequest) -> LongRope:
    trained = request.trained_length
    values.require(trained > 1, f"original_max_position_embeddings is {trained}, expected more than 1")
    trained = max(trained, 2)
    factor = values.number("factor", request.positions / trained)
    given = values.optional_number("attention_factor")
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
    "RopeRequest",
    "StaticRope",
    "needs_length_input",
    "needs_positions",
    "plain_rope",
    "read_rope",
    "request_of",
    "rope_request",
    "rotary_dim",
    "turned_by_attention",
    "yarn_magnitude",
]
