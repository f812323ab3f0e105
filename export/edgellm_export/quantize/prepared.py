"""Matrices that calibration has quantized, kept in files until the graph that holds them is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgellm_export.quantize.formats import Arrays, MatrixFormat


@dataclass(frozen=True)
class PreparedMatrix:
    """`error`: how far the layer's outputs are from the float layer's, on calibration text (see choice.py)."""

    form: MatrixFormat
    error: float
    file: Path

    def arrays(self) -> Arrays:
        """The contents of the format's regions."""
        with self.file.open("rb") as file:
            return tuple(np.load(file, allow_pickle=False) for _ in self.form.regions("", 1, 1))


def keep(form: MatrixFormat, error: float, arrays: Arrays, file: Path) -> PreparedMatrix:
    """Write `arrays` to `file`."""
    with file.open("xb") as out:
        for array in arrays:
            np.save(out, array, allow_pickle=False)
    return PreparedMatrix(form, error, file)
