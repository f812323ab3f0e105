"""Logits to probabilities. Pure functions on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]


def softmax(logits: FloatArray, axis: int = -1) -> FloatArray:
    """Probabilities of the same shape and type, which sum to 1 along `axis`."""
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def sigmoid(logits: FloatArray) -> FloatArray:
    """Probabilities of the same shape and type, each for itself."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))  # which, unlike the fraction, cannot overflow


def best(scores: FloatArray, count: int) -> npt.NDArray[np.int64]:
    """The places of the `count` highest of [n] scores, highest first."""
    if count < len(scores):
        places = np.argpartition(-scores, count)[:count]
        return np.asarray(places[np.argsort(-scores[places], kind="stable")], np.int64)
    return np.argsort(-scores, kind="stable")
