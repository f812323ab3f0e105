"""When tokens are said: the path through what a decoder's alignment heads look at. After Whisper's timing of words, as
transformers computes it (`_extract_token_timestamps`)."""

from __future__ import annotations

import numpy as np

from edgellm.types import BoolArray, DoubleArray, FloatArray, IntArray

FILTER = 7  # positions that a median is of
DIAGONAL, UP, LEFT = range(3)  # where a cell of the path is reached from


def token_positions(weights: FloatArray) -> IntArray:
    """The position in the source where each token begins. weights: [heads, tokens, positions], how much each token
    looks at each position. Returns [tokens], rising."""
    if not weights.size:
        return np.zeros(weights.shape[1], np.int64)
    return path(-aligned(weights).astype(np.float64))


def aligned(weights: FloatArray) -> FloatArray:
    """[tokens, positions]: the mean of the heads, each normalized over the tokens and smoothed over the positions. A
    single token has no deviation: NaN, by which all paths are alike."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = (weights - weights.mean(axis=1, keepdims=True)) / weights.std(axis=1, keepdims=True)
    return np.asarray(np.mean([_smoothed(head) for head in scaled], axis=0), np.float32)


def _smoothed(values: FloatArray) -> FloatArray:
    """Each of [tokens, positions] is the median of its neighbourhood; beyond an edge it is mirrored."""
    edge = FILTER // 2
    if values.shape[1] <= edge:
        return values
    padded = np.pad(values, [(0, 0), (edge, edge)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, FILTER, axis=1)
    return np.asarray(np.sort(windows, axis=-1)[..., edge])


def path(costs: DoubleArray) -> IntArray:
    """The column where the cheapest path from the first to the last cell of costs [rows, columns] enters each row; it
    goes right, down, or both (dynamic time warping)."""
    steps = _steps(costs)
    row, column = np.array(costs.shape) - 1
    entered = np.zeros(len(costs), np.int64)
    while row >= 0 and column >= 0:
        entered[row] = column
        step = steps[row, column]
        row -= step != LEFT
        column -= step != UP
    return entered


def _steps(costs: DoubleArray) -> IntArray:
    """[rows, columns]: where the cheapest path to each cell comes from. All cells of a diagonal, from the lower left to
    the upper right, are computed at once: they need those of the two before it."""
    rows, columns = costs.shape
    width = columns + 1
    total = np.full((rows + 1) * width, np.inf, np.float32)  # in the rounding of the reference
    total[0] = 0
    steps = np.empty((rows, columns), np.int64)
    for diagonal in range(rows + columns - 1):
        row = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        column = diagonal - row
        cell = (row + 1) * width + column + 1
        across, above, left = total[cell - width - 1], total[cell - width], total[cell - 1]
        by_both: BoolArray = (across < above) & (across < left)
        by_row: BoolArray = (above < across) & (above < left)
        total[cell] = costs[row, column] + np.where(by_both, across, np.where(by_row, above, left))
        steps[row, column] = np.where(by_both, DIAGONAL, np.where(by_row, UP, LEFT))
    return steps
