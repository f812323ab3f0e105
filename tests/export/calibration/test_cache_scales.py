"""Scales of an int8 key/value cache: they hold wherever a token may stand."""

from __future__ import annotations

import numpy as np

from edgellm_export.blocks.rope import DynamicRope, StaticRope
from edgellm_export.calibration.cache_scales import aligned, sizes_at_any_position, turns_per_token


def test_scales_hold_at_every_position() -> None:
    """Keys of 5 tokens turned to every position of a context of 300, by pairs that turn fast and slowly."""
    keys = np.random.default_rng(0).normal(0, 1, (2, 5, 12)).astype(np.float32)
    turns = turns_per_token([StaticRope(np.array([1.0, 0.1, 0.004, 0.0001], np.float32))])
    sizes = sizes_at_any_position(keys, turns, 300)
    first, second = keys[..., :4, None], keys[..., 4:8, None]
    angle = turns[:, None] * (np.arange(300) - np.arange(5)[:, None, None])  # [tokens, pairs, positions]
    turned = [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)]
    largest = np.abs(np.concatenate(turned, axis=-2)).max(axis=-1)
    assert (largest <= sizes[..., :8] * (1 + 1e-5)).all()
    np.testing.assert_allclose(largest, sizes[..., :8], rtol=0.002)
    np.testing.assert_array_equal(sizes[..., 8:], np.abs(keys[..., 8:]))


def test_the_first_token_falls_near_a_step() -> None:
    scale = np.full((1, 3), 0.01, np.float32)
    first = np.array([[[0.505, 0.0, 0.9]]] * 2, np.float32)  # halfway between two steps, on one, on one
    found = aligned(scale, first)
    assert abs(first[0] / found - np.rint(first[0] / found)).max() < 0.1
    assert scale[0, 0] < found[0, 0] <= 1.05 * scale[0, 0]
    np.testing.assert_array_equal(found[0, 1:], scale[0, 1:])


def test_tables_that_depend_on_the_length_turn_anywhere() -> None:
    keys = np.random.default_rng(0).normal(0, 1, (1, 3, 8)).astype(np.float32)
    sizes = sizes_at_any_position(keys, turns_per_token([DynamicRope(1e4, 8, 2.0, 16)]), 32)
    length = np.hypot(keys[..., :4], keys[..., 4:])
    np.testing.assert_array_equal(sizes, np.concatenate([length, length], axis=-1))
    np.testing.assert_array_equal(sizes_at_any_position(keys, turns_per_token([]), 32), np.abs(keys))
