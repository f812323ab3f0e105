"""The types of tensors, by ONNX Runtime's names."""

from __future__ import annotations

from typing import Any

import numpy as np

DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(bool)": np.dtype(np.bool_),
}
TYPE_NAMES = {dtype.name: name for name, dtype in DTYPES.items()}  # by numpy's names
FLOATS = TYPE_NAMES["float32"], TYPE_NAMES["float16"]
INTEGERS = TYPE_NAMES["int64"], TYPE_NAMES["int32"], TYPE_NAMES["bool"]  # what ids, positions and masks may be
