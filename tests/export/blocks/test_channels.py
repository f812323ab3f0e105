"""Channels moved along a graph: whatever the factors and offsets, each product stays what it was."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgellm_export.blocks.channels import ChannelMoves, Channels
from edgellm_export.checkpoint.tensors import ArrayTensor

ROWS, COLUMNS, TOKENS = 5, 7, 11
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(0, 1, (ROWS, COLUMNS)).astype(np.float32)
SCALE = np.exp(RNG.normal(0, 1, COLUMNS)).astype(np.float32)
SHIFT = RNG.normal(0, 3, COLUMNS).astype(np.float32)
VALUES = RNG.normal(0, 1, (TOKENS, COLUMNS)).astype(np.float32)

MOVES = {
    "nothing": Channels(),
    "scales": Channels(ChannelMoves(scales={"norm": SCALE})),
    "shifts": Channels(ChannelMoves(shifts={"norm": SHIFT})),
    "both": Channels(ChannelMoves(scales={"norm": SCALE}, shifts={"norm": SHIFT})),
}


def whole(tensor: object) -> np.ndarray:
    return tensor.rows(0, tensor.shape[0])  # type: ignore[attr-defined]


@pytest.mark.parametrize("channels", MOVES.values(), ids=MOVES)
def test_a_norm_and_the_layer_that_reads_it(channels: Channels) -> None:
    """The norm's weight is 1: its bias is what makes the values."""
    x, weight = channels.made(ir.Value(name="x"), "norm"), ArrayTensor("w", WEIGHT)
    values = channels.divided("norm", VALUES) + channels.moved("norm", np.zeros(COLUMNS, np.float32))
    read = whole(channels.read(x, weight, "layer", into_softmax=False))
    lacking = channels.missing(x, weight)
    product = values @ read.T + (0 if lacking is None else lacking)
    np.testing.assert_allclose(product, VALUES @ WEIGHT.T, rtol=1e-4, atol=1e-4)
    assert (lacking is None) == ("norm" not in channels.moves.shifts)


@pytest.mark.parametrize("channels", MOVES.values(), ids=MOVES)
def test_two_layers(channels: Channels) -> None:
    """The rows of the first make what the columns of the second read."""
    first = RNG.normal(0, 1, (COLUMNS, 3)).astype(np.float32)
    inputs = RNG.normal(0, 1, (TOKENS, 3)).astype(np.float32)
    bias = RNG.normal(0, 1, COLUMNS).astype(np.float32)
    x, weight = channels.made(ir.Value(name="x"), "norm"), ArrayTensor("w", WEIGHT)
    rows = whole(channels.divided_rows("norm", ArrayTensor("first", first)))
    values = inputs @ rows.T + channels.moved("norm", bias)
    product = values @ whole(channels.read(x, weight, "layer", into_softmax=False)).T
    lacking = channels.missing(x, weight)
    expected = (inputs @ first.T + bias) @ WEIGHT.T
    np.testing.assert_allclose(product + (0 if lacking is None else lacking), expected, rtol=1e-4, atol=1e-3)


def test_other_values_are_as_they_were() -> None:
    channels, weight = Channels(ChannelMoves(scales={"norm": SCALE}, shifts={"norm": SHIFT})), ArrayTensor("w", WEIGHT)
    for x in (ir.Value(name="x"), channels.made(ir.Value(name="y"), "another norm")):
        assert channels.read(x, weight, "layer", into_softmax=False) is weight
        assert channels.missing(x, weight) is channels.scale_of(x) is channels.shift_of(x) is None
    np.testing.assert_array_equal(channels.moved("another norm", SHIFT), SHIFT)


def test_the_layers_that_read_are_remembered_in_order() -> None:
    channels, x = Channels(ChannelMoves(scales={"norm": SCALE})), ir.Value(name="x")
    channels.made(x, "norm")
    for name, into_softmax in (("q", True), ("v", False)):
        channels.read(x, ArrayTensor(name, WEIGHT), name, into_softmax=into_softmax)
    found = [(each.name, each.origin, each.into_softmax) for each in channels.projections]
    assert found == [("q", "norm", True), ("v", "norm", False)]
    np.testing.assert_array_equal(whole(channels.projections[0].weight), WEIGHT * SCALE)
