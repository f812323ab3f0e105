"""Rotary positions as config.json asks for them, in the ways of all versions of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgellm.errors import UnsupportedModelError
from edgellm_export.architectures import read_family
from edgellm_export.blocks.rope import DynamicRope, LongRope, StaticRope

FACTORS = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


def rope(model_type: str = "llama", **keys: Any) -> Any:
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "head_dim": 16}
    return read_family({"model_type": model_type, **sizes, **keys}, 100).shape.ropes[0]


def theta_of(found: Any) -> float:
    assert isinstance(found, StaticRope)
    return float(found.inv_freq[1]) ** -8


@pytest.mark.parametrize(
    ("keys", "theta"),
    [
        ({}, 10000),
        ({"rope_theta": 500}, 500),
        ({"rope_parameters": {"rope_theta": 500}}, 500),
        ({"rope_theta": 7, "rope_parameters": {"rope_theta": 500}}, 500),
        ({"rope_theta": 500, "rope_parameters": {"rope_type": "default"}}, 500),
        ({"rope_scaling": {"rope_theta": 500}, "rope_parameters": {"rope_theta": 7}}, 500),
        ({"rope_scaling": {}, "rope_parameters": {"rope_theta": 500}}, 500),
        ({"rope_scaling": None, "rope_theta": 500}, 500),
    ],
)
def test_rope_scaling_comes_before_rope_parameters_and_both_before_the_keys_beside(
    keys: dict[str, Any], theta: float
) -> None:
    assert theta_of(rope(**keys)) == pytest.approx(theta, rel=1e-4)


def test_rope_type_comes_before_type() -> None:
    found = rope(rope_scaling={"rope_type": "dynamic", "type": "linear", "factor": 2.0})
    assert isinstance(found, DynamicRope)


def test_the_trained_length_beside_wins_over_that_inside() -> None:
    keys = {"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 16, **FACTORS}}
    inside = rope("phi3", **keys, max_position_embeddings=64, original_max_position_embeddings=32)
    assert isinstance(inside, LongRope)
    assert inside.trained_length == 32


@pytest.mark.parametrize("kind", ["su", "yarn", "longrope"])
def test_phi3_has_one_kind_of_scaling_by_several_names(kind: str) -> None:
    assert isinstance(rope("phi3", rope_scaling={"type": kind, **FACTORS}), LongRope)


@pytest.mark.parametrize("kind", ["linear", "dynamic", "llama3"])
def test_phi3_has_no_other_kind(kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match=kind):
        rope("phi3", rope_scaling={"type": kind, "factor": 2.0})


def test_proportional_frequencies_stand_still_behind_their_share() -> None:
    found = rope(rope_parameters={"rope_type": "proportional", "partial_rotary_factor": 0.5, "factor": 2.0})
    plain = rope().inv_freq
    np.testing.assert_allclose(found.inv_freq, [*plain[:4] / 2, 0, 0, 0, 0], rtol=1e-6)


def test_each_kind_of_gemma3s_layers_has_its_own_rope() -> None:
    keys = {"rope_parameters": {"full_attention": {"rope_theta": 500.0}, "sliding_attention": {"rope_theta": 50.0}}}
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    found = read_family({"model_type": "gemma3_text", "num_hidden_layers": 6, **sizes, **keys}, 100).config
    assert [round(theta_of(each)) for each in found.ropes] == [50, 50, 50, 50, 50, 500]


def test_the_class_has_a_scaling_of_its_own_where_the_config_says_nothing_of_rope() -> None:
    """Apertus; what a file says takes its place whole, under either name."""
    plain = {"rope_type": "default", "rope_theta": 1e6}
    scaled = rope("apertus", rope_theta=1e6)
    assert theta_of(rope("apertus", rope_scaling=plain)) == pytest.approx(1e6, rel=1e-3)
    assert theta_of(rope("apertus", rope_parameters=plain)) == pytest.approx(1e6, rel=1e-3)
    assert isinstance(scaled, StaticRope)
    assert float(scaled.inv_freq[-1]) < float(rope("apertus", rope_parameters=plain).inv_freq[-1]) / 2
