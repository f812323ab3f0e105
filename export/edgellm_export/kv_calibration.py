"""Scales of an int8 key/value cache, from the keys and values of a float run over calibration text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edgellm_export.build import CacheScales
from edgellm_export.float_run import FloatRun
from edgellm_export.rope import rotary_dim

FloatArray = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]

LARGEST = 127  # int8, symmetric
MARGIN = 1.0


def cache_scales(run: FloatRun, sequences: Sequence[Tokens], progress: Callable[[int, int], None]) -> list[CacheScales]:
    """For each layer, the scale of each channel of its keys and values."""
    shape = run.architecture.shape
    rotated = max(map(rotary_dim, shape.ropes), default=0)
    found: list[CacheScales] = []
    states = run.embed(sequences)
    for index in range(shape.num_layers):
        states, cached = run.cached_layer(index, sequences, states)
        keys, values = (np.concatenate(side, axis=1) for side in zip(*cached, strict=True))
        found.append(CacheScales(_scale(pair_norms(keys, rotated)), _scale(np.abs(values))))
        progress(index + 1, shape.num_layers)
    return found


def pair_norms(keys: FloatArray, rotated: int) -> FloatArray:
    """How large each channel of rotated keys [..., head_dim] gets at any position: rotation turns channel i into
    channel i + rotated / 2 and back, and calibration text is short beside the slowest turns. The same shape."""
    low, high, rest = np.split(np.abs(keys), [rotated // 2, rotated], axis=-1)
    norms = np.hypot(low, high)
    return np.concatenate([norms, norms, rest], axis=-1)


def _scale(sizes: FloatArray) -> FloatArray:
    """sizes: [num_kv_heads, tokens, head_dim], none negative. Returns [num_kv_heads, head_dim], all positive."""
    largest = sizes.max(axis=1) * MARGIN
    return np.asarray(np.maximum(largest, 1e-6) / LARGEST, np.float32)
