"""Scales of an int8 key/value cache, from the keys and values of a float run over calibration text.

A channel's scale is its largest size over 127: a smaller one clips the first token's keys and values, which every
later token attends to (Xiao et al., arXiv 2309.17453), and costs more than the finer steps gain. Or up to 5% more
than that, so that the first token falls near a step: on SmolLM2-135M it lowers the KL divergence by a tenth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgellm.types import FloatArray, ProgressHook, TokenArray
from edgellm_export.blocks.build import CacheScales
from edgellm_export.blocks.rope import Rope, StaticRope, rotary_dim
from edgellm_export.float_run.decoder import DecoderRun
from edgellm_export.float_run.layers import FloatLayer, States

LARGEST = 127  # of int8, the same on both sides of zero
SILENT = 1e-6  # the least size that a channel is given
STRETCHES = np.linspace(1, 1.05, 26, dtype=np.float32)


def cache_scales(run: DecoderRun, texts: Sequence[TokenArray], progress: ProgressHook) -> list[CacheScales | None]:
    """For each layer, the scale of each channel of its keys and values, of both the same where values are keys, of
    those that share them the same; None where it has none."""
    shape = run.family.shape
    turns, own = turns_per_token(shape.ropes), shape.num_layers - len(shape.shared)
    found: list[CacheScales | None] = []

    def observe(layer: FloatLayer, states: States) -> list[FloatArray]:
        if layer.index in shape.recurrent_layers:
            found.append(None)
            return layer.run(states)
        if layer.index >= own:
            found.append(found[shape.shared[layer.index - own]])
            return layer.run(states)
        after, cached = run.cached(layer, states)
        keys = _scale([sizes_at_any_position(key, turns, shape.context_length) for key, _ in cached])
        values = _scale([np.abs(value) for _, value in cached])
        first_key, first_value = (np.stack([side[:, 0] for side in sides]) for sides in zip(*cached, strict=True))
        of_keys = aligned(keys, first_key)
        found.append(CacheScales(of_keys, of_keys if shape.values_are_keys else aligned(values, first_value)))
        progress(layer.index + 1, shape.num_layers)
        return after

    run.through(texts, observe)
    return found


def turns_per_token(ropes: Sequence[Rope]) -> FloatArray:
    """[rotary_dim / 2] radians by which a rotated pair of channels turns per token, at most: of several ropes the
    fastest; where it depends on the length, half a turn, after which every angle has occurred."""
    turns = [r.inv_freq if isinstance(r, StaticRope) else np.full(rotary_dim(r) // 2, np.pi) for r in ropes]
    return np.asarray(np.max(turns, axis=0) if turns else np.empty(0), np.float32)


def sizes_at_any_position(keys: FloatArray, turns: FloatArray, context: int) -> FloatArray:
    """How large each channel of `keys` would be where that is largest, had its token stood elsewhere in the context.

    keys: [num_kv_heads, tokens, head_dim] as cached, token i at position i; the same shape. Rotation turns channel i
    and channel i + rotary_dim / 2 into each other, and calibration text is short beside the slowest turns.
    """
    half = len(turns)
    first, second, rest = np.split(keys, [half, 2 * half], axis=-1)
    length, angle = np.hypot(first, second), np.arctan2(second, first)
    position = np.arange(keys.shape[1], dtype=np.float32)[:, None]
    back, forth = angle - position * turns, angle + (context - 1 - position) * turns
    sides = [length * _largest_cosine(back - shift, forth - shift) for shift in (0.0, np.pi / 2)]
    return np.concatenate([*sides, np.abs(rest)], axis=-1)


def _largest_cosine(low: FloatArray, high: FloatArray) -> FloatArray:
    """The largest |cos| between the angles `low` and `high`."""
    peak_between = np.floor(high / np.pi) >= np.ceil(low / np.pi)
    at_ends = np.maximum(np.abs(np.cos(low)), np.abs(np.cos(high)))
    return np.asarray(np.where(peak_between, 1, at_ends), np.float32)


def _scale(sizes: Sequence[FloatArray]) -> FloatArray:
    """sizes: [num_kv_heads, tokens, head_dim] each, none negative. Returns [num_kv_heads, head_dim], all positive."""
    largest = np.max([size.max(axis=1) for size in sizes], axis=0)
    return np.asarray(np.maximum(largest, SILENT) / LARGEST, np.float32)


def aligned(scale: FloatArray, first: FloatArray) -> FloatArray:
    """`scale`, stretched so that rounding costs the first token and all others together the least.

    scale: [num_kv_heads, head_dim]. first: [sequences, num_kv_heads, head_dim], of each sequence's first token.
    """
    candidates = STRETCHES[:, None, None] * scale
    steps = first / candidates[:, None]  # [stretches, sequences, num_kv_heads, head_dim]
    of_first = np.square(np.rint(steps) - steps).mean(axis=1)
    of_others = 1 / 12  # the mean square of what rounding takes or adds, in steps
    cost = np.square(candidates) * (of_first + of_others)
    return np.asarray(np.take_along_axis(candidates, cost.argmin(axis=0)[None], axis=0)[0])
