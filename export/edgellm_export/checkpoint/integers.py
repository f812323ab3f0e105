"""Matrices that a checkpoint holds quantized, and the integers of those that are integers, which a package may keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgellm.types import ByteArray, FloatArray
from edgellm_export.checkpoint.tensors import (
    DividedRows,
    Every,
    LazyTensor,
    NamedView,
    PairsApart,
    RowConcat,
    RowSlice,
    RunPart,
    TensorView,
)


@dataclass(frozen=True)
class Integers:
    """Rows of a matrix: weight = scale * (level - zero point). `group_size` weights of a row share both; the last ones
    of a row may be fewer. levels: [rows, columns]. scales, zero_points: [rows, groups] float32. Levels and zero points
    are from 0 to 2**bits - 1. `written`: the bits that the checkpoint has of a weight, where they are fewer."""

    bits: int
    group_size: int
    levels: ByteArray
    scales: FloatArray
    zero_points: FloatArray
    written: int | None = None

    @property
    def checkpoint_bits(self) -> int:
        """Of a weight."""
        return self.written or self.bits


@dataclass(frozen=True)
class QuantizedTensor(ABC):
    """A LazyTensor that the checkpoint holds in fewer bits than floating-point numbers have."""

    name: str
    shape: tuple[int, ...]

    @abstractmethod
    def rows(self, start: int, stop: int) -> FloatArray:
        """[stop - start, *shape[1:]] float32."""

    def integers(self, start: int, stop: int) -> Integers | None:
        """The same rows; None where they are no integers, or share scales in another way."""
        return None


@dataclass(frozen=True)
class UnusedBias:
    """A bias of zeros, which some tools write for layers that have none: it may be taken, and need not be."""

    name: str
    shape: tuple[int, ...]
    tensor: LazyTensor

    def rows(self, start: int, stop: int) -> FloatArray:
        return self.tensor.rows(start, stop)


def integers_of(tensor: LazyTensor, start: int, stop: int) -> tuple[Integers, ...]:
    """The integers of some rows of a tensor or of a view of one, one behind the other; nothing where a row has none."""
    match tensor:
        case QuantizedTensor():
            found = tensor.integers(start, stop)
            return () if found is None else (found,)
        case RowSlice():
            return integers_of(tensor.tensor, tensor.start + start, tensor.start + stop)
        case Every():
            first, last = tensor.within(start, stop)
            return tuple(_every(each, tensor.step) for each in integers_of(tensor.tensor, first, last))
        case DividedRows():
            return _divided(integers_of(tensor.tensor, start, stop), tensor.scale[start:stop])
        case RunPart():
            return _of_runs(tensor, start, stop)
        case PairsApart():
            return _of_pairs(tensor, start, stop)
        case RowConcat():
            return _of_parts(tensor, start, stop)
    return ()


def samples_of(tensor: LazyTensor) -> tuple[Integers, ...]:
    """A row of each tensor that a tensor or a view of some consists of; nothing where one has no integers."""
    match tensor:
        case RowSlice() | Every() | DividedRows() | RunPart() | PairsApart():
            return samples_of(tensor.tensor)
        case RowConcat():
            found = [samples_of(part) for part in tensor.parts]
            return tuple(each for samples in found for each in samples) if all(found) else ()
    return integers_of(tensor, 0, 1)


def quantized_in(tensor: LazyTensor) -> Iterator[QuantizedTensor]:
    """The quantized tensors that a tensor or view shows numbers of."""
    match tensor:
        case QuantizedTensor():
            yield tensor
        case RowConcat():
            for part in tensor.parts:
                yield from quantized_in(part)
        case NamedView() | TensorView():
            yield from quantized_in(tensor.tensor)


def _every(found: Integers, step: int) -> Integers:
    levels, scales, zero_points = found.levels[::step], found.scales[::step], found.zero_points[::step]
    return replace(found, levels=levels, scales=scales, zero_points=zero_points)


def _divided(found: tuple[Integers, ...], scale: FloatArray) -> tuple[Integers, ...]:
    pieces, at = [], 0
    for each in found:
        rows = len(each.levels)
        pieces.append(replace(each, scales=each.scales / scale[at : at + rows, None]))
        at += rows
    return tuple(pieces)


def _of_runs(part: RunPart, start: int, stop: int) -> tuple[Integers, ...]:
    """Run by run, as far as they are asked for."""
    pieces: list[Integers] = []
    size = part.last - part.first
    for run in range(start // size, -(-stop // size)):
        shift = run * (part.every - size) + part.first
        found = integers_of(part.tensor, shift + max(start, run * size), shift + min(stop, (run + 1) * size))
        if not found:
            return ()
        pieces += found
    return tuple(pieces)


def _of_pairs(view: PairsApart, start: int, stop: int) -> tuple[Integers, ...]:
    """Head by head, in the view's order."""
    size, pieces = view.head_dim, []
    for first in range(start // size * size, stop, size):
        found = integers_of(view.tensor, first, first + size)
        if len(found) != 1:
            return ()
        (head,), order = found, view.order[max(start - first, 0) : stop - first]
        levels, scales, zero_points = head.levels[order], head.scales[order], head.zero_points[order]
        pieces.append(replace(head, levels=levels, scales=scales, zero_points=zero_points))
    return tuple(pieces)


def _of_parts(whole: RowConcat, start: int, stop: int) -> tuple[Integers, ...]:
    pieces: list[Integers] = []
    offset = 0
    for part in whole.parts:
        low, high = max(start - offset, 0), min(stop - offset, part.shape[0])
        if low < high:
            found = integers_of(part, low, high)
            if not found:
                return ()
            pieces += found
        offset += part.shape[0]
    return tuple(pieces)
