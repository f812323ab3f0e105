"""Weights that are read when they are needed: what checkpoints hand out and what the exporter computes with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


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
