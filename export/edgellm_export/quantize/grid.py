"""Integers for weights: where the levels lie, and which level each weight gets. Pure array functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgellm.types import ByteArray, FloatArray

STEP = 32  # columns rounded one by one before the rest of the matrix follows
DAMPING = 0.01  # of the mean square input, added to each: directions that the text never took stay where they are


@dataclass(frozen=True)
class Grid:
    """Levels 0 to 2**bits - 1; weight = scale * (level - zero_point). `block_size` weights of a row share a scale and a
    zero point. Symmetric grids have their zero point in the middle."""

    bits: int
    block_size: int
    symmetric: bool

    @property
    def middle(self) -> int:
        return 1 << (self.bits - 1)

    def blocks(self, columns: int) -> list[tuple[int, int]]:
        """The blocks of a row, as (start, stop); the last one may be short."""
        return [(start, min(start + self.block_size, columns)) for start in range(0, columns, self.block_size)]

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


def compensated(rows: FloatArray, inputs: FloatArray, grid: Grid) -> Codes:
    """Codes of rows [rows, columns] for a layer that reads inputs [tokens, columns], by rounding that makes up for its
    errors: each column's is spread over the columns still to be rounded, so that the layer's output, on inputs like
    those of the calibration text, changes least (GPTQ, Frantar et al., arXiv 2210.17323)."""
    spread = _spread(inputs)
    columns = np.array(rows.T, np.float32, order="C")  # [columns, rows], changed as errors are spread
    count, height = columns.shape
    blocks = grid.blocks(count)
    starts = {start: i for i, (start, _) in enumerate(blocks)}
    levels = np.empty((count, height), np.uint8)
    scales, zeros = np.empty((len(blocks), height), np.float32), np.empty((len(blocks), height), np.float32)
    block = 0
    for first in range(0, count, STEP):
        last = min(first + STEP, count)
        errors = np.empty((last - first, height), np.float32)
        for i in range(first, last):
            if i in starts:
                block = starts[i]
                scales[block], zeros[block] = grid.fit(columns[slice(*blocks[block])].T)
            level = grid.levels(columns[i], scales[block], zeros[block])
            levels[i] = level
            error = (columns[i] - (level - zeros[block]) * scales[block]) / spread[i, i]
            columns[i + 1 : last] -= spread[i, i + 1 : last, None] * error
            errors[i - first] = error
        columns[last:] -= spread[first:last, last:].T @ errors
    return Codes(np.ascontiguousarray(levels.T), scales.T.copy(), zeros.T.copy())


def _spread(inputs: FloatArray) -> FloatArray:
    """Upper Cholesky factor [columns, columns] of the inverse of inputs.T @ inputs, damped."""
    moments = (inputs.T @ inputs).astype(np.float64)
    mean = float(np.trace(moments)) / len(moments)
    moments[np.diag_indices_from(moments)] += DAMPING * mean if mean > 0 else 1.0
    # With the order of the columns reversed, the lower factor of `moments` is the upper one of it, and the inverse of
    # that is the upper factor of the inverse.
    upper = np.linalg.cholesky(moments[::-1, ::-1])[::-1, ::-1]
    return np.linalg.inv(upper).astype(np.float32)


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
