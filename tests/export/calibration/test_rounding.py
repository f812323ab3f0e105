"""What calibration reads out of a layer's inputs: the size of each channel."""

from __future__ import annotations

import numpy as np
import pytest

from edgellm_export.calibration.rounding import channel_sizes, scale_of, worthwhile
from edgellm_export.calibration.texts import CALIBRATION_TOPICS, EVALUATION_TOPICS


def test_texts_are_apart() -> None:
    assert not set(CALIBRATION_TOPICS) & set(EVALUATION_TOPICS)


def test_scales_of_silent_and_damaged_channels() -> None:
    scale = scale_of(np.array([0.0, 1.0, 1.0, 4.0]))
    assert np.isfinite(scale).all()
    assert scale[0] > 0.01 * scale[1]
    assert np.prod(scale.astype(np.float64)) == pytest.approx(1, rel=1e-5)
    assert (scale_of(np.array([np.nan, 1.0])) == 1).all()


def test_scales_that_cost_a_multiplication_are_for_unlike_channels() -> None:
    scales = {"like": np.array([0.8, 1.5], np.float32), "unlike": np.array([0.5, 1.5], np.float32)}
    assert list(worthwhile(scales)) == ["unlike"]


def test_first_tokens_count_by_their_largest_only() -> None:
    values = np.ones((20, 2), np.float32)
    values[0] = [50, 5]
    np.testing.assert_allclose(channel_sizes([values]), [5, 1])
    assert np.isfinite(channel_sizes([values[:2]])).all()  # shorter than what is set apart
