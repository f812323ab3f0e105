"""A matrix rounded by what its layer reads, and how far the layer's outputs are off then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgellm.types import FloatArray
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.quantize.carried import carried, carries
from edgellm_export.quantize.formats import Arrays, BlockFormat
from edgellm_export.quantize.grid import Codes, compensated, nearest

MEASURED = 512  # tokens
SPREAD_TOKENS = 256  # of fewer, which an expert of many may see, its errors cannot be made up for
SPREAD_COLUMNS = 2048  # int8 matrices with more columns are only rounded: the gain is small, the time cubic


@dataclass(frozen=True)
class Rounded:
    """`error`: root mean square, over tokens, of |quantized output - output| / |output|; None without tokens."""

    codes: Codes
    error: float | None


@dataclass(frozen=True)
class PreparedMatrix:
    """A matrix that calibration has rounded, kept in a file until the graph that holds it is written. `error`: see
    `Rounded`."""

    form: BlockFormat
    error: float | None
    file: Path

    def arrays(self) -> Arrays:
        """The contents of the format's regions."""
        with self.file.open("rb") as file:
            return tuple(np.load(file, allow_pickle=False) for _ in self.form.regions("", 1, 1))


def rounded(weight: LazyTensor, inputs: FloatArray, form: BlockFormat) -> Rounded:
    """For a layer that multiplies inputs [tokens, columns] by `weight`: the checkpoint's own integers where `form` can
    hold them, else the nearest, or those that make up for their errors where that is better."""
    rows = weight.rows(0, weight.shape[0])
    own = carried(weight, form.grid, 0, len(rows)) if carries(weight, form.grid) else None
    codes = nearest(rows, form.grid) if own is None else own
    if not len(inputs):  # an expert that no token of the text chose
        return Rounded(codes, None)
    sample = inputs[:: -(-len(inputs) // MEASURED)]
    outputs = sample @ rows.T
    error = _error(form, codes, sample, outputs)
    if own is not None or not np.isfinite(outputs).all():  # of a damaged model, which the comparison will refuse
        return Rounded(codes, error)
    if len(inputs) < SPREAD_TOKENS or (form.bits == 8 and rows.shape[1] > SPREAD_COLUMNS):
        return Rounded(codes, error)
    # Tokens count alike: a sequence's first ones are so large that the others would not be seen beside them.
    alike = inputs / np.maximum(np.linalg.norm(inputs, axis=1, keepdims=True), 1e-30)
    spread = compensated(rows, alike, form.grid)
    better = _error(form, spread, sample, outputs)
    return Rounded(spread, better) if better < error else Rounded(codes, error)


def _error(form: BlockFormat, codes: Codes, inputs: FloatArray, outputs: FloatArray) -> float:
    wrong = form.activations(inputs) @ codes.weights(form.grid).T - outputs
    share = np.linalg.norm(wrong, axis=1) / np.maximum(np.linalg.norm(outputs, axis=1), 1e-30)
    return float(np.sqrt(np.mean(np.square(share, dtype=np.float64))))


def keep(form: BlockFormat, matrix: Rounded, file: Path) -> PreparedMatrix:
    """Write what is stored of `matrix` to `file`."""
    with file.open("xb") as out:
        for array in form.arrays(matrix.codes):
            np.save(out, array, allow_pickle=False)
    return PreparedMatrix(form, matrix.error, file)
