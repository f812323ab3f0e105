"""Integers of a checkpoint on a package's grids: the same numbers, or none at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from edgellm_export.checkpoint.integers import Integers, QuantizedTensor, integers_of, quantized_in
from edgellm_export.checkpoint.tensors import (
    ArrayTensor,
    DividedRows,
    RowConcat,
    RowSlice,
    RunPart,
    ScaledColumns,
    Transposed,
)
from edgellm_export.quantize.calibrated import rounded
from edgellm_export.quantize.carried import carried, carries
from edgellm_export.quantize.grid import Grid
from edgellm_export.quantize.schemes import IntegerScheme, scheme_for

INT4, INT8, WIDE = Grid(4, 32, False), Grid(8, 32, True), Grid(8, 64, True)


@dataclass(frozen=True)
class Held(QuantizedTensor):
    """A matrix that is all in memory."""

    held: Integers

    def rows(self, start: int, stop: int) -> np.ndarray:
        found = self.integers(start, stop)
        group = np.arange(found.levels.shape[1]) // found.group_size
        return ((found.levels - found.zero_points[:, group]) * found.scales[:, group]).astype(np.float32)

    def integers(self, start: int, stop: int) -> Integers:
        it = self.held
        arrays = (each[start:stop] for each in (it.levels, it.scales, it.zero_points))
        return Integers(it.bits, it.group_size, *arrays)


def held(bits: int, size: int, *, zeros: int | None = None, rows: int = 24, columns: int = 160, seed: int = 0) -> Held:
    """`zeros`: of all groups; None draws them."""
    rng = np.random.default_rng(seed)
    groups = -(-columns // size)
    levels = rng.integers(0, 1 << bits, (rows, columns), np.uint8)
    drawn = rng.integers(0, 1 << bits, (rows, groups)) if zeros is None else np.full((rows, groups), zeros)
    scales = rng.random((rows, groups), np.float32)
    return Held("w", (rows, columns), Integers(bits, size, levels, scales, drawn.astype(np.float32)))


CARRIED = {
    "4 bits": (held(4, 32), INT4),
    "larger groups": (held(4, 128), INT4),
    "whole rows": (held(4, 160), INT4),
    "rows that end within a block": (held(4, 64, columns=80), INT4),
    "2 bits": (held(2, 32), INT4),
    "4 bits in 8": (held(4, 64), INT8),
    "8 bits": (held(8, 32, zeros=128), INT8),
    "8 bits with zero points near the middle": (held(8, 160, zeros=128), WIDE),
    "4 bits per row": (held(4, 160), WIDE),
}
NOT_CARRIED = {
    "8 bits in 4": (held(8, 32, zeros=128), INT4),
    "groups smaller than blocks": (held(4, 16), INT4),
    "groups that end within a block": (held(4, 48), INT4),
    "8 bits with other zero points": (held(8, 32), INT8),
    "groups that are half of a block": (held(4, 32), WIDE),
}


@pytest.mark.parametrize("case", CARRIED)
def test_carried_integers_stand_for_the_same_numbers(case: str) -> None:
    tensor, grid = CARRIED[case]
    assert carries(tensor, grid)
    codes = carried(tensor, grid, 0, tensor.shape[0])
    assert codes is not None
    np.testing.assert_array_equal(codes.weights(grid), tensor.rows(0, tensor.shape[0]))
    assert codes.scales.shape == codes.zero_points.shape == (tensor.shape[0], len(grid.blocks(tensor.shape[1])))
    assert codes.levels.dtype == np.uint8


@pytest.mark.parametrize("case", NOT_CARRIED)
def test_what_a_grid_cannot_hold_is_not_carried(case: str) -> None:
    assert not carries(*NOT_CARRIED[case])


def test_a_level_too_many_anywhere_in_the_matrix_is_noticed() -> None:
    tensor = held(8, 32, zeros=127, rows=40)
    tensor.held.levels[:] = 100
    assert carries(tensor, INT8)
    tensor.held.levels[39, 7] = 255
    assert not carries(tensor, INT8)


VIEWS = {
    "rows": (RowSlice("v", held(4, 32), 5, 17), True),
    "concatenated": (RowConcat("v", (held(4, 32), held(4, 160, seed=1), held(2, 64, seed=2))), True),
    "divided rows": (DividedRows(held(4, 32), np.linspace(0.5, 2, 24, dtype=np.float32)), True),
    "a part of each head": (RunPart("v", held(4, 32), 4, 8, 12), True),
    "scaled columns": (ScaledColumns(held(4, 32), np.full(160, 2, np.float32)), False),
    "transposed": (Transposed("v", held(4, 32, columns=24)), False),
    "with floats": (RowConcat("v", (held(4, 32), ArrayTensor("f", np.ones((3, 160), np.float32)))), False),
    "a vector": (ArrayTensor("f", np.ones(160, np.float32)), False),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_rows_are_carried_and_others_are_not(name: str) -> None:
    view, kept = VIEWS[name]
    assert carries(view, INT4) == kept
    if kept:
        for start, stop in ((0, view.shape[0]), (1, 3), (3, view.shape[0] - 1)):
            codes = carried(view, INT4, start, stop)
            assert codes is not None
            np.testing.assert_allclose(codes.weights(INT4), view.rows(start, stop), rtol=2e-7)


def test_views_know_what_they_show() -> None:
    names = [[tensor.name for tensor in quantized_in(view)] for view, _ in VIEWS.values()]
    assert [len(each) for each in names] == [1, 3, 1, 1, 1, 1, 1, 0]
    assert integers_of(ArrayTensor("f", np.ones((3, 4), np.float32)), 0, 1) == ()


@pytest.mark.parametrize(
    ("tensor", "size", "kept"),
    [(held(4, 160), 64, True), (held(4, 64), 64, True), (held(4, 32), 32, True), (held(4, 16), 64, False)],
)
def test_int8_has_the_blocks_that_hold_the_integers(tensor: Held, size: int, kept: bool) -> None:
    """Whether text calibrates it or not."""
    scheme, inputs = scheme_for("int8", "cpu"), np.random.default_rng(0).standard_normal((64, 160)).astype(np.float32)
    assert isinstance(scheme, IntegerScheme)
    form = scheme.form_of("/layer", tensor, outer=False)
    assert (form.bits, form.block_size) == (8, size)
    assert carries(tensor, form.grid) == kept
    codes = rounded(tensor, inputs, form).codes
    assert np.array_equal(codes.weights(form.grid), tensor.rows(0, 24)) == kept


def test_int4_has_one_format_whatever_the_checkpoint_holds() -> None:
    scheme = scheme_for("int4", "cpu")
    assert isinstance(scheme, IntegerScheme)
    assert scheme.form_of("/layer", held(8, 32, zeros=128), outer=False) == scheme.inner


@pytest.mark.parametrize("bits", [4, 8])
def test_whole_rows_have_the_same_scale_in_each_block(bits: int) -> None:
    """Bit for bit: the checkpoint's levels, and its scale once per block."""
    tensor, grid = held(bits, 160, zeros=1 << (bits - 1)), Grid(8, 64, True)
    codes = carried(tensor, grid, 0, 24)
    assert codes is not None
    np.testing.assert_array_equal(codes.scales, np.repeat(tensor.held.scales, 3, axis=1))
    np.testing.assert_array_equal(codes.levels.astype(int) - 128, tensor.held.levels.astype(int) - (1 << (bits - 1)))
