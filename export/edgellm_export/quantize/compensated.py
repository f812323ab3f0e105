"""Rounding that makes up for its errors: each column's is spread over the columns still to be rounded, so that the
layer's output, on inputs like those of the calibration text, changes least (GPTQ, Frantar et al., arXiv 2210.17323).
"""

from __future__ import annotations

import numpy as np

from edgellm.types import FloatArray
from edgellm_export.quantize.grid import Codes, Grid

STEP = 32  # columns rounded one by one before the rest of the matrix follows
DAMPING = 0.01  # of the mean square input, added to each: directions that the text never took stay where they are


def compensated(rows: FloatArray, inputs: FloatArray, grid: Grid) -> Codes:
    """Codes of rows [rows, columns] for a layer that reads inputs [tokens, columns]."""
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
