"""Integers for weights: where the levels lie, and which level each weight gets. Pure array functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgellm.types import ByteArray, FloatArray


@dataclass(frozen=True)
class Grid:
    """Levels 0 to 2**bits - 1; weight = scale * (level - zero_point). `block_size` weights of a row share a scale and a
    zero point, or (None) all of them do. Symmetric grids have their zero point in the middle."""

    bits: int
    block_size: int | None
    symmetric: bool

    @property
    def middle(self) -> int:
        return 1 << (self.bits - 1)

    def blocks(self, columns: int) -> list[tuple[int, int]]:
        """The blocks of a row, as (start, stop); the last one may be short."""
        size = self.block_size or columns
        return [(start, min(start + size, columns)) for start in range(0, columns, size)]

    def fit(self, blocks: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Scales and zero points [...] float32 for blocks [..., weights]."""
        if self.symmetric:
            scales = _symmetric_scales(blocks, self.bits)
            return scales, np.full(scales.shape, self.middle, np.float32)
        return _asymmetric(blocks, self.bits)

    def levels(self, weights: FloatArray, scales: FloatArray, zero_points: FloatArray) -> FloatArray:
        """The nearest levels, as float32; `scales` and `zero_points` broadcast."""
        inverse = np.where(scales == 0, 0, 1 / np.where(scales == 0, 1, scales)).astype(np.float32)
        levels = weights * inverse
        np.rint(levels, out=levels)
        levels += zero_points
        return np.clip(levels, 0, 2 * self.middle - 1, out=levels)


@dataclass(frozen=True)
class Codes:
    """A matrix on a grid. levels: [rows, columns] uint8. scales and zero_points: [rows, blocks] float32."""

    levels: ByteArray
    scales: FloatArray
    zero_points: FloatArray

    def weights(self, grid: Grid) -> FloatArray:
        """What the integers stand for: [rows, columns] float32."""
        weights = self.levels.astype(np.float32)
        for i, (start, stop) in enumerate(grid.blocks(weights.shape[1])):
            weights[:, start:stop] -= self.zero_points[:, i, None]
            weights[:, start:stop] *= self.scales[:, i, None]
        return weights


def nearest(rows: FloatArray, grid: Grid) -> Codes:
    """Each weight of rows [rows, columns] to its nearest level."""
    levels = np.empty(rows.shape, np.uint8)
    scales, zero_points = [], []
    for start, stop in grid.blocks(rows.shape[1]):
        scale, zero = grid.fit(rows[:, start:stop])
        levels[:, start:stop] = grid.levels(rows[:, start:stop], scale[:, None], zero[:, None])
        scales.append(scale)
        zero_points.append(zero)
    return Codes(levels, np.stack(scales, axis=1), np.stack(zero_points, axis=1))


def _symmetric_scales(blocks: FloatArray, bits: int) -> FloatArray:
    """8 bits: largest magnitude / 127. 4 bits: signed value of largest magnitude / -8, so the full range serves it."""
    high = blocks.max(axis=-1)
    low = blocks.min(axis=-1)
    if bits == 8:
        return np.asarray(np.maximum(high, -low) / 127, np.float32)
    return np.asarray(np.where(high > -low, high, low) / -(1 << (bits - 1)), np.float32)


def _asymmetric(blocks: FloatArray, bits: int) -> tuple[FloatArray, FloatArray]:
    """Scales and zero points that span each block's range, widened to hold zero."""
    low = np.minimum(blocks.min(axis=-1), 0)
    high = np.maximum(blocks.max(axis=-1), 0)
    scales = ((high - low) / ((1 << bits) - 1)).astype(np.float32)
    zero_points = np.rint(-low / np.where(scales == 0, 1, scales))
    return scales, np.clip(zero_points, 0, (1 << bits) - 1).astype(np.float32)
