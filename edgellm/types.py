"""The arrays and callbacks that modules of every floor, of both halves, pass to each other. Shapes stand where they are
used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]
TokenArray = IntArray  # token ids, [length] or [rows]
Logits = FloatArray  # [rows, vocab], or [length, vocab] of one row

Progress = Callable[[str, int, int], None]  # (step name, done, total)
ProgressHook = Callable[[int, int], None]  # (prompt tokens done, prompt tokens in all); may raise to stop the prefill
