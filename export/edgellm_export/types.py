"""The types that modules of every floor pass to each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Progress = Callable[[str, int, int], None]  # (step name, done, total)
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Tokens = IntArray  # of one text: [length]
