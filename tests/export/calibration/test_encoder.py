"""Matrices of encoders in parts: which channels each has, and how far off they are together."""

from __future__ import annotations

import numpy as np
import pytest

from edgellm_export.calibration.encoder import by_size, together
from edgellm_export.checkpoint.tensors import ArrayTensor


def test_large_channels_are_set_apart() -> None:
    values = np.random.default_rng(0).normal(size=(50, 200)).astype(np.float32)
    large = np.sort(np.random.default_rng(1).permutation(200)[:32])
    values[:, large] *= -9
    usual, apart = by_size(values)
    np.testing.assert_array_equal(apart, large)
    np.testing.assert_array_equal(np.sort([*usual, *apart]), np.arange(200))
    assert [len(part) for part in by_size(values[:, :90])] == [90]
    wide = np.arange(1, 3073, dtype=np.float32)[None]
    small, middle, largest = by_size(wide)  # none has more columns than are compensated
    np.testing.assert_array_equal(np.concatenate([small, middle, largest]), np.arange(3072))
    assert (len(small), len(middle), len(largest)) == (1280, 1280, 512)


def test_errors_of_parts_together() -> None:
    """As if each part's outputs had been changed by its error, independently."""
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(300, size)).astype(np.float32) for size in (40, 25)]
    matrices = [rng.normal(size=(400, size)).astype(np.float32) * scale for size, scale in ((40, 1), (25, 3))]
    outputs = [x @ w.T for x, w in zip(inputs, matrices, strict=True)]
    wrong = [error * rng.normal(size=y.shape) * np.sqrt(np.mean(y**2, axis=1, keepdims=True)) for error, y in
             zip((0.02, 0.01), outputs, strict=True)]  # fmt: skip
    shares = np.linalg.norm(sum(wrong), axis=1) / np.linalg.norm(sum(outputs), axis=1)
    parts = [(x, ArrayTensor("w", w), error) for x, w, error in zip(inputs, matrices, (0.02, 0.01), strict=True)]
    assert together(parts) == pytest.approx(np.sqrt(np.mean(shares**2)), rel=0.02)
