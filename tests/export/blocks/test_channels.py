"""Channels scaled along a graph: whatever the factors, each product stays what it was."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgellm_export.blocks.channels import Channels
from edgellm_export.checkpoint.tensors import ArrayTensor

ROWS, COLUMNS, TOKENS = 5, 7, 11
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(0, 1, (ROWS, COLUMNS)).astype(np.float32)
SCALE = np.exp(RNG.normal(0, 1, COLUMNS)).astype(np.float32)
VALUES = RNG.normal(0, 1, (TOKENS, COLUMNS)).astype(np.float32)
SCALES = {"nothing": {}, "scales": {"norm": SCALE}}


def whole(tensor: object) -> np.ndarray:
    return tensor.rows(0, tensor.shape[0])  # type: ignore[attr-defined]


@pytest.mark.parametrize("scales", SCALES.values(), ids=SCALES)
def test_a_norm_and_the_layer_that_reads_it(scales: dict[str, np.ndarray]) -> None:
    channels = Channels(scales)
    x, weight = channels.made(ir.Value(name="x"), "norm"), ArrayTensor("w", WEIGHT)
    values, read = channels.divided("norm", VALUES), whole(channels.read(x, weight, "layer"))
    np.testing.assert_allclose(values @ read.T, VALUES @ WEIGHT.T, rtol=1e-4, atol=1e-4)
    assert np.array_equal(values, VALUES) == (not scales)


@pytest.mark.parametrize("scales", SCALES.values(), ids=SCALES)
def test_two_layers(scales: dict[str, np.ndarray]) -> None:
    """The rows of the first make what the columns of the second read."""
    channels = Channels(scales)
    first = RNG.normal(0, 1, (COLUMNS, 3)).astype(np.float32)
    inputs = RNG.normal(0, 1, (TOKENS, 3)).astype(np.float32)
    bias = RNG.normal(0, 1, COLUMNS).astype(np.float32)
    x, weight = channels.made(ir.Value(name="x"), "norm"), ArrayTensor("w", WEIGHT)
    rows = whole(channels.divided_rows("norm", ArrayTensor("first", first)))
    values = inputs @ rows.T + channels.divided("norm", bias)
    product = values @ whole(channels.read(x, weight, "layer")).T
    np.testing.assert_allclose(product, (inputs @ first.T + bias) @ WEIGHT.T, rtol=1e-4, atol=1e-3)


def test_other_values_are_as_they_were() -> None:
    channels, weight = Channels({"norm": SCALE}), ArrayTensor("w", WEIGHT)
    for x in (ir.Value(name="x"), channels.made(ir.Value(name="y"), "another norm")):
        assert channels.read(x, weight, "layer") is weight
        assert channels.scale_of(x) is None
    np.testing.assert_array_equal(channels.divided("another norm", SCALE), SCALE)
    assert channels.divided_rows("another norm", weight) is weight


def test_the_layers_that_read_are_remembered_in_order() -> None:
    channels, x = Channels({"norm": SCALE}), ir.Value(name="x")
    channels.made(x, "norm")
    for name, outer in (("q", False), ("head", True)):
        channels.read(x, ArrayTensor(name, WEIGHT), name, outer=outer)
    found = [(each.name, each.origin, each.outer) for each in channels.projections]
    assert found == [("q", "norm", False), ("head", "norm", True)]
    np.testing.assert_array_equal(whole(channels.projections[0].weight), WEIGHT * SCALE)
