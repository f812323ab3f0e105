"""What calibration reads out of a layer's inputs: the size and the middle of each channel."""

from __future__ import annotations

import numpy as np
import pytest

from edgellm_export.calibration.rounding import channel_shifts, channel_sizes, scale_of, shifted
from edgellm_export.calibration.texts import CALIBRATION_TOPICS, EVALUATION_TOPICS
from edgellm_export.float_run.layers import ObservedLinear


def test_texts_are_apart() -> None:
    assert not set(CALIBRATION_TOPICS) & set(EVALUATION_TOPICS)


def test_scales_of_silent_and_damaged_channels() -> None:
    scale = scale_of(np.array([0.0, 1.0, 1.0, 4.0]))
    assert np.isfinite(scale).all()
    assert scale[0] > 0.01 * scale[1]
    assert np.prod(scale.astype(np.float64)) == pytest.approx(1, rel=1e-5)
    assert (scale_of(np.array([np.nan, 1.0])) == 1).all()


def test_shifts_are_the_middles_of_ranges() -> None:
    values = np.linspace([0, -1], [4, 2], 2001, dtype=np.float32)
    values[7] = 1000  # one token in two thousand says nothing
    layers = [ObservedLinear(name, name, False, [values[:900].copy(), values[900:]]) for name in "ab"]
    layers.append(ObservedLinear("c", None, False, [values]))
    layers[1].inputs[0][3, 1] = np.nan
    shifts = channel_shifts(layers[:1])
    np.testing.assert_allclose(shifts["a"], [2, 0.5], atol=0.01)
    assert not channel_shifts(layers)["b"].any()
    moved = shifted(layers, shifts)
    np.testing.assert_allclose(moved[0].inputs[1], values[900:] - shifts["a"])
    assert moved[2] is layers[2]


def test_first_tokens_count_by_their_largest_only() -> None:
    values = np.ones((20, 2), np.float32)
    values[0] = [50, 5]
    np.testing.assert_allclose(channel_sizes([values]), [5, 1])
    assert np.isfinite(channel_sizes([values[:2]])).all()  # shorter than what is set apart
