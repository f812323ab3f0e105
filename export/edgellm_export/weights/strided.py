"""Tensors that are views of a run of numbers in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import as_strided

from edgellm.errors import TensorError
from edgellm.types import Array, FloatArray
from edgellm_export.weights.values import ITEM_BITS, as_floats, check_float, read_stored


@dataclass(frozen=True)
class StridedTensor:
    """One tensor of a file. `offset` is in bytes from the start of the file, `strides` are in items. A slice of rows
    costs memory for the part of the file from its first number to its last: for the slice alone where rows lie one
    behind the other, for the whole matrix where it is stored transposed."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    path: Path
    offset: int
    strides: tuple[int, ...]

    def rows(self, start: int, stop: int) -> FloatArray:
        """[stop - start, *shape[1:]] float32. Raises TensorError for a type that is not a plain floating-point one."""
        check_float(self.path, self.name, self.dtype)
        return as_floats(self.stored(start, stop), self.dtype)

    def stored(self, start: int, stop: int) -> Array:
        """[stop - start, *shape[1:]] of a type in STORED, as they are in the file."""
        shape, strides = (stop - start, *self.shape[1:]), self.strides or (1,)
        if math.prod(self.shape) > span(self.shape, self.strides):
            raise TensorError(
                f"{self.name} in {self.path.name} has more numbers than the file stores for it (an expanded view); "
                "save it with .contiguous()"
            )
        offset = self.offset + start * strides[0] * ITEM_BITS[self.dtype] // 8
        raw = read_stored(self.path, self.name, self.dtype, span(shape, strides), offset)
        steps = tuple(stride * raw.itemsize for stride in strides)
        return np.ascontiguousarray(as_strided(raw, shape, steps, writeable=False))


def span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """The items from the first number of a view to its last."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of an array in one piece, its last axis the fastest."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
