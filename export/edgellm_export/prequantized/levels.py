"""Matrices of integers in the checkpoint: levels packed into words, and what a level stands for."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from edgellm.types import Array, ByteArray, FloatArray, IntArray
from edgellm_export.checkpoint.integers import Integers, QuantizedTensor


def unpacked(words: Array, bits: int, count: int) -> ByteArray:
    """[rows, count] levels of [rows, words] 32-bit words, which hold them from the lowest bit on, one behind the
    other."""
    packed = np.ascontiguousarray(words).view(np.uint8)
    if bits in (1, 2, 4, 8):
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        levels = (packed[:, :, None] >> shifts) & np.uint8((1 << bits) - 1)
        return np.ascontiguousarray(levels.reshape(len(packed), -1)[:, :count])
    stream = np.unpackbits(packed, axis=1, bitorder="little")[:, : count * bits]
    return np.packbits(stream.reshape(len(packed), count, bits), axis=2, bitorder="little")[:, :, 0]


def widths(values: FloatArray, size: int, columns: int) -> FloatArray:
    """[rows, columns] of values [rows, groups] of `size` columns each; the last group may be smaller."""
    return np.repeat(values, size, axis=1)[:, :columns] if values.shape[1] > 1 else values


def words_for(count: int, bits: int) -> int:
    return -(-count * bits // 32)


@dataclass(frozen=True)
class IntegerTensor(QuantizedTensor):
    """A matrix of integers. `group_size`: weights of a row that share a scale and a zero point. `groups`: the group of
    each column, where they do not lie side by side."""

    bits: int
    group_size: int
    groups: IntArray | None

    @abstractmethod
    def codes(self, start: int, stop: int) -> tuple[ByteArray, FloatArray, FloatArray]:
        """Levels [rows, columns], scales and zero points [rows, groups], for some rows."""

    def rows(self, start: int, stop: int) -> FloatArray:
        levels, scales, zero_points = self.codes(start, stop)
        found = levels.astype(np.float32)
        found -= self._of_columns(zero_points)
        found *= self._of_columns(scales)
        return found

    def _of_columns(self, values: FloatArray) -> FloatArray:
        """[rows, columns] of [rows, groups]."""
        if self.groups is not None:
            return np.take(values, self.groups, axis=1)
        return widths(values, self.group_size, self.shape[1])

    def integers(self, start: int, stop: int) -> Integers | None:
        return None if self.groups is not None else Integers(self.bits, self.group_size, *self.codes(start, stop))
