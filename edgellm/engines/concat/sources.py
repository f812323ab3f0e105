"""Sources of encoder-decoders that concatenate: what their decoder reads, one set of keys and values for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgellm.engines.in_place.sources import array_of
from edgellm.ort.binding import DeviceArray
from edgellm.types import Array, IntArray


@dataclass(frozen=True)
class Source:
    """An encoded source. hidden: [1, length, width]. cross: keys and values, each [1, heads, length, head_dim]."""

    length: int
    hidden: DeviceArray | Array
    cross: tuple[DeviceArray | Array, ...] = ()


@dataclass(frozen=True)
class Cross:
    """What rows read of their sources. tensors: [rows, heads, longest, head_dim], padded behind. mask: [rows, longest]
    int64, ones for tokens."""

    tensors: tuple[DeviceArray | Array, ...]
    mask: IntArray

    @classmethod
    def of(cls, sources: Sequence[Source]) -> Cross:
        lengths = np.array([source.length for source in sources])
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
        if len(sources) == 1:
            return cls(sources[0].cross, mask)
        return cls(tuple(_stacked(tensors) for tensors in zip(*(s.cross for s in sources), strict=True)), mask)

    @property
    def nbytes(self) -> int:
        return sum(array_of(tensor).nbytes for tensor in self.tensors)


def _stacked(tensors: Sequence[DeviceArray | Array]) -> Array:
    """[rows, heads, longest, head_dim], padded behind with zeros."""
    arrays = [array_of(tensor)[0] for tensor in tensors]
    longest = max(array.shape[1] for array in arrays)
    stacked = np.zeros((len(arrays), arrays[0].shape[0], longest, arrays[0].shape[2]), arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[:, : array.shape[1]] = array
    return stacked
