"""Weights with an adapter in them, computed by rows when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgellm.types import FloatArray, IntArray
from edgellm_export.checkpoint.tensors import LazyTensor, NamedView, TensorView


@dataclass(frozen=True)
class LowRank(TensorView):
    """A matrix plus scale * b @ a (Hu et al., arXiv 2106.09685). a: [rank, columns]. b: [rows, rank]."""

    a: LazyTensor
    b: LazyTensor
    scale: float

    def rows(self, start: int, stop: int) -> FloatArray:
        product = self.b.rows(start, stop) @ self.a.rows(0, self.a.shape[0])
        return self.tensor.rows(start, stop) + product * np.float32(self.scale)


@dataclass(frozen=True)
class WithMagnitude(TensorView):
    """A matrix whose row i has the length magnitude[i] (DoRA, Liu et al., arXiv 2402.09353)."""

    magnitude: LazyTensor

    def rows(self, start: int, stop: int) -> FloatArray:
        rows = self.tensor.rows(start, stop)
        factors = self.magnitude.rows(start, stop) / np.linalg.norm(rows, axis=1)
        scaled: FloatArray = rows * factors[:, None]
        return scaled


@dataclass(frozen=True)
class Added(TensorView):
    """A tensor plus scale * other."""

    other: LazyTensor
    scale: float

    def rows(self, start: int, stop: int) -> FloatArray:
        return self.tensor.rows(start, stop) + self.other.rows(start, stop) * np.float32(self.scale)


@dataclass(frozen=True)
class WithRows(TensorView):
    """A matrix with rows[i] in the place of its row index[i]. index: [count]."""

    index: IntArray
    replaced: LazyTensor

    def rows(self, start: int, stop: int) -> FloatArray:
        rows = self.tensor.rows(start, stop).copy()
        for place in np.flatnonzero((self.index >= start) & (self.index < stop)).tolist():
            rows[self.index[place] - start] = self.replaced.rows(place, place + 1)[0]
        return rows


@dataclass(frozen=True)
class KeptTranspose(NamedView):
    """The transpose of a matrix that is small enough to be kept once it was read."""

    @property
    def shape(self) -> tuple[int, ...]:
        rows, columns = self.tensor.shape
        return (columns, rows)

    @cached_property
    def _array(self) -> FloatArray:
        return np.ascontiguousarray(self.tensor.rows(0, self.tensor.shape[0]).T)

    def rows(self, start: int, stop: int) -> FloatArray:
        return self._array[start:stop]
