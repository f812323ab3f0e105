"""The integers that a checkpoint holds already, on a grid that can hold them: carried over, not rounded anew."""

from __future__ import annotations

import numpy as np

from edgellm.types import ByteArray
from edgellm_export.checkpoint.integers import Integers, integers_of, samples_of
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.quantize.grid import Codes, Grid
from edgellm_export.quantize.pieces import pieces


def carries(weight: LazyTensor, grid: Grid) -> bool:
    """Whether `grid` can hold the checkpoint's own integers of a whole matrix."""
    samples = samples_of(weight)
    if not samples or any(_on(grid, each) is None for each in samples):
        return False
    if not grid.symmetric or all(each.bits < grid.bits for each in samples):
        return True
    return all(carried(weight, grid, start, stop) is not None for start, stop in pieces(weight))  # levels may not fit


def has_fewer_bits(weight: LazyTensor, bits: int) -> bool:
    """Whether the checkpoint has no more than so many of a weight, where integers that stand for it have more."""
    return any(each.checkpoint_bits <= bits < each.bits for each in samples_of(weight))


def carried(weight: LazyTensor, grid: Grid, start: int, stop: int) -> Codes | None:
    """Some rows of a matrix as codes on `grid` that stand for the same numbers. None where there are none."""
    found = [_on(grid, each) for each in integers_of(weight, start, stop)]
    codes = [each for each in found if each is not None]
    if not codes or len(codes) < len(found):
        return None
    if len(codes) == 1:
        return codes[0]
    return Codes(
        np.concatenate([each.levels for each in codes]),
        np.concatenate([each.scales for each in codes]),
        np.concatenate([each.zero_points for each in codes]),
    )


def _on(grid: Grid, found: Integers) -> Codes | None:
    """A group of weights becomes several blocks with the same scale; levels move with their zero points."""
    columns = found.levels.shape[1]
    if found.bits > grid.bits or (found.group_size < columns and found.group_size % grid.block_size):
        return None
    blocks = [start // found.group_size for start, _ in grid.blocks(columns)]
    scales, zero_points = found.scales[:, blocks], found.zero_points[:, blocks]
    if not grid.symmetric:
        return Codes(found.levels, scales, zero_points)
    levels = _moved(found, grid.middle)
    return None if levels is None else Codes(levels, scales, np.full(scales.shape, grid.middle, np.float32))


def _moved(found: Integers, middle: int) -> ByteArray | None:
    """Levels around `middle`; None where some would be out of those that a grid around it has."""
    if (found.zero_points == middle).all():
        return found.levels
    group = np.arange(found.levels.shape[1]) // found.group_size
    moved = found.levels.astype(np.int16) + np.int16(middle) - found.zero_points.astype(np.int16)[:, group]
    return moved.astype(np.uint8) if moved.min() >= 0 and moved.max() < 2 * middle else None
