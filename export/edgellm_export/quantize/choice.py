"""Which format a layer gets: the fastest whose measured error is small enough; and the matrix rounded that way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgellm.types import FloatArray
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.quantize.carried import carried, carries
from edgellm_export.quantize.formats import Arrays, MatrixFormat
from edgellm_export.quantize.grid import Codes, Grid, compensated, nearest

# Relative error of a layer's outputs. On SmolLM2-135M, per-row integers (errors of 0.01 to 0.015) in all of gate_proj,
# up_proj or o_proj leave the divergence as it is; in the queries and keys (0.01) they raise it by half.
LIMIT, SOFTMAX_LIMIT = 0.02, 0.006
MEASURED = 512  # tokens
SPREAD_COLUMNS = 2048  # int8 matrices with more columns are only rounded: the gain is small, the time cubic


@dataclass(frozen=True)
class Choice:
    """`error`: root mean square, over tokens, of |quantized output - output| / |output|."""

    form: MatrixFormat
    codes: Codes
    error: float


@dataclass(frozen=True)
class PreparedMatrix:
    """A matrix that calibration has quantized, kept in a file until the graph that holds it is written. `error`: of
    the `Choice` that it was."""

    form: MatrixFormat
    error: float
    file: Path

    def arrays(self) -> Arrays:
        """The contents of the format's regions."""
        with self.file.open("rb") as file:
            return tuple(np.load(file, allow_pickle=False) for _ in self.form.regions("", 1, 1))


def choose(rows: FloatArray, inputs: FloatArray, candidates: Sequence[MatrixFormat], limit: float) -> Choice:
    """For a layer that multiplies inputs [tokens, columns] by rows [outputs, columns]: the first of `candidates` whose
    error is within `limit`, or the last one."""
    sample, outputs = _sampled(rows, inputs)
    found = _first([(form, partial(nearest, rows, form.grid)) for form in candidates], sample, outputs, limit)
    form = found.form
    if not np.isfinite(outputs).all():  # a damaged model, which the comparison with the original will refuse
        return found
    if form.grid.bits == 8 and (form.grid.block_size == 32 or rows.shape[1] > SPREAD_COLUMNS):
        return found
    # Tokens count alike: a sequence's first ones are so large that the others would not be seen beside them.
    alike = inputs / np.maximum(np.linalg.norm(inputs, axis=1, keepdims=True), 1e-30)
    better = _measured(form, compensated(rows, alike, form.grid), sample, outputs)
    return min(found, better, key=lambda choice: choice.error)


def choose_carried(
    weight: LazyTensor, inputs: FloatArray, candidates: Sequence[MatrixFormat], limit: float
) -> Choice | None:
    """The same for a matrix that the checkpoint holds as integers, of the candidates that can hold these; None where
    none can."""
    held = [form for form in candidates if carries(weight, form.grid)]
    if not held:
        return None
    count = weight.shape[0]
    sample, outputs = _sampled(weight.rows(0, count), inputs)
    return _first([(form, partial(_all_carried, weight, form.grid)) for form in held], sample, outputs, limit)


def _all_carried(weight: LazyTensor, grid: Grid) -> Codes:
    codes = carried(weight, grid, 0, weight.shape[0])
    assert codes is not None
    return codes


def _sampled(rows: FloatArray, inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Some of the inputs, and what the float layer makes of them."""
    sample = inputs[:: -(-len(inputs) // MEASURED)]
    return sample, sample @ rows.T


def _first(
    candidates: Sequence[tuple[MatrixFormat, Callable[[], Codes]]],
    sample: FloatArray,
    outputs: FloatArray,
    limit: float,
) -> Choice:
    for form, codes in candidates:
        found = _measured(form, codes(), sample, outputs)
        if found.error <= limit:
            break
    return found


def _measured(form: MatrixFormat, codes: Codes, inputs: FloatArray, outputs: FloatArray) -> Choice:
    wrong = form.activations(inputs) @ codes.weights(form.grid).T - outputs
    share = np.linalg.norm(wrong, axis=1) / np.maximum(np.linalg.norm(outputs, axis=1), 1e-30)
    return Choice(form, codes, float(np.sqrt(np.mean(np.square(share, dtype=np.float64)))))


def keep(form: MatrixFormat, error: float, arrays: Arrays, file: Path) -> PreparedMatrix:
    """Write `arrays` to `file`."""
    with file.open("xb") as out:
        for array in arrays:
            np.save(out, array, allow_pickle=False)
    return PreparedMatrix(form, error, file)
