"""Weights that are read when they are needed: what checkpoints hand out and what the exporter computes with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from edgellm.types import FloatArray, IntArray


class LazyTensor(Protocol):
    """A tensor on disk, or a view of one. Reading a slice of rows costs memory for that slice only."""

    @property
    def name(self) -> str:
        """Where it came from, for messages."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def rows(self, start: int, stop: int) -> FloatArray:
        """[stop - start, *shape[1:]] float32: a slice of the first axis."""


@dataclass(frozen=True)
class ArrayTensor:
    """A LazyTensor that is already in memory."""

    name: str
    array: FloatArray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def rows(self, start: int, stop: int) -> FloatArray:
        return self.array[start:stop]


@dataclass(frozen=True)
class ZeroTensor:
    """Stands in for a tensor of which only name and shape are known: its values are zeros."""

    name: str
    shape: tuple[int, ...]

    def rows(self, start: int, stop: int) -> FloatArray:
        return np.zeros((stop - start, *self.shape[1:]), np.float32)


@dataclass(frozen=True)
class RowConcat:
    """Tensors stacked along the first axis."""

    name: str
    parts: tuple[LazyTensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    def rows(self, start: int, stop: int) -> FloatArray:
        pieces, offset = [], 0
        for part in self.parts:
            low, high = max(start - offset, 0), min(stop - offset, part.shape[0])
            if low < high:
                pieces.append(part.rows(low, high))
            offset += part.shape[0]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


@dataclass(frozen=True)
class TensorView:
    """A tensor seen in another way: with its name and its shape, where a view does not say otherwise."""

    tensor: LazyTensor

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape


@dataclass(frozen=True)
class NamedView:
    """Some numbers of a tensor under another name."""

    name: str
    tensor: LazyTensor


@dataclass(frozen=True)
class RowSlice(NamedView):
    """Rows `start` to `stop` of a tensor."""

    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.stop - self.start, *self.tensor.shape[1:])

    def rows(self, start: int, stop: int) -> FloatArray:
        return self.tensor.rows(self.start + start, self.start + stop)


@dataclass(frozen=True)
class Every(NamedView):
    """Each `step`-th row of a tensor, from row `first` on."""

    first: int
    step: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.tensor.shape[0] // self.step, *self.tensor.shape[1:])

    def rows(self, start: int, stop: int) -> FloatArray:
        return self.tensor.rows(*self.within(start, stop))[:: self.step]

    def within(self, start: int, stop: int) -> tuple[int, int]:
        """The tensor's rows from the first of these to the last."""
        first = self.first + start * self.step
        return first, max(first, self.first + (stop - 1) * self.step + 1)


@dataclass(frozen=True)
class Item(TensorView):
    """The matrix or vector number `index` of several in one tensor. Each read goes through all of it."""

    index: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape[1:]

    def rows(self, start: int, stop: int) -> FloatArray:
        return self.tensor.rows(self.index, self.index + 1)[0, start:stop]


@runtime_checkable
class Stack(LazyTensor, Protocol):
    """A tensor whose file can be read from the middle."""

    def item(self, index: int) -> LazyTensor:
        """One of the matrices or vectors along its first axis."""


def item_of(tensor: LazyTensor, index: int) -> LazyTensor:
    """The matrix or vector number `index` of several in one tensor."""
    return tensor.item(index) if isinstance(tensor, Stack) else Item(tensor, index)


@dataclass(frozen=True)
class RunPart(NamedView):
    """Rows `first` to `last` of each run of `every` rows: such as the keys of all heads, where the queries, keys and
    values of a head stand one behind the other."""

    first: int
    last: int
    every: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.tensor.shape[0] // self.every * (self.last - self.first), *self.tensor.shape[1:])

    def rows(self, start: int, stop: int) -> FloatArray:
        size = self.last - self.first
        begin, end = start // size, -(-stop // size)  # runs
        runs = self.tensor.rows(begin * self.every, end * self.every).reshape(-1, self.every, *self.shape[1:])
        return runs[:, self.first : self.last].reshape(-1, *self.shape[1:])[start - begin * size : stop - begin * size]


@dataclass(frozen=True)
class PickedRows(NamedView):
    """Some rows of a tensor, each read by itself. index: [rows]."""

    index: IntArray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.index), *self.tensor.shape[1:])

    def rows(self, start: int, stop: int) -> FloatArray:
        return np.concatenate([self.tensor.rows(row, row + 1) for row in self.index[start:stop].tolist()])


@dataclass(frozen=True)
class Transposed(NamedView):
    """The transpose of a matrix. Each read goes through the whole matrix: for the few layers stored the other way
    round."""

    @property
    def shape(self) -> tuple[int, ...]:
        rows, columns = self.tensor.shape
        return (columns, rows)

    def rows(self, start: int, stop: int) -> FloatArray:
        return np.ascontiguousarray(self.tensor.rows(0, self.tensor.shape[0])[:, start:stop].T)


def transposed(name: str, tensor: LazyTensor) -> LazyTensor:
    """The transpose of a matrix; of one that is a transpose, what that was made of."""
    return tensor.tensor if isinstance(tensor, Transposed) else Transposed(name, tensor)


@dataclass(frozen=True)
class PairsApart(TensorView):
    """Heads whose rows that rotate together stand half of `rotary_dim` apart, out of a tensor in which they are
    neighbours; the rows behind the first `rotary_dim` of a head stay. `head_dim` counts rows per head."""

    head_dim: int
    rotary_dim: int

    @property
    def order(self) -> IntArray:
        """[head_dim]: which row of a head in the tensor is each one here."""
        turned = np.arange(self.rotary_dim).reshape(-1, 2).T.reshape(-1)
        return np.concatenate([turned, np.arange(self.rotary_dim, self.head_dim)])

    def rows(self, start: int, stop: int) -> FloatArray:
        first, last = start // self.head_dim, -(-stop // self.head_dim)  # heads
        stored = self.tensor.rows(first * self.head_dim, last * self.head_dim)
        heads = stored.reshape(last - first, self.head_dim, *self.shape[1:])[:, self.order]
        return heads.reshape(stored.shape)[start - first * self.head_dim : stop - first * self.head_dim]


@dataclass(frozen=True)
class PaddedHeads(TensorView):
    """Heads of `padded` numbers each out of a tensor in which they have `head_dim`: zeros stand behind these. They are
    the rows, or the columns (`axis` 1)."""

    head_dim: int
    padded: int
    axis: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        sizes = list(self.tensor.shape)
        sizes[self.axis] = sizes[self.axis] // self.head_dim * self.padded
        return tuple(sizes)

    def rows(self, start: int, stop: int) -> FloatArray:
        if self.axis:
            return self._with_zeros(self.tensor.rows(start, stop))
        first, last = start // self.padded, -(-stop // self.padded)  # heads
        heads = self._with_zeros(self.tensor.rows(first * self.head_dim, last * self.head_dim))
        return heads[start - first * self.padded : stop - first * self.padded]

    def _with_zeros(self, stored: FloatArray) -> FloatArray:
        before, behind = stored.shape[: self.axis], stored.shape[self.axis + 1 :]
        heads = stored.reshape(*before, -1, self.head_dim, *behind)
        width = [(0, 0)] * heads.ndim
        width[self.axis + 1] = (0, self.padded - self.head_dim)
        return np.pad(heads, width).reshape(*before, -1, *behind)


@dataclass(frozen=True)
class ScaledColumns(TensorView):
    """A matrix with column j multiplied by scale[j]. scale: [columns] float32."""

    scale: FloatArray

    def rows(self, start: int, stop: int) -> FloatArray:
        return self.tensor.rows(start, stop) * self.scale


@dataclass(frozen=True)
class DividedRows(TensorView):
    """A matrix with row i divided by scale[i]. scale: [rows] float32."""

    scale: FloatArray

    def rows(self, start: int, stop: int) -> FloatArray:
        return self.tensor.rows(start, stop) / self.scale[start:stop, None]
