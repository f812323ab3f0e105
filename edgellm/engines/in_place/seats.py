"""Where rows sit in the batch of a decoder that wants the same number of rows for each source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgellm.types import IntArray


@dataclass(frozen=True)
class Seats:
    """Where the search's rows sit in the decoder's batch, which has `width` rows for each source: one source's rows may
    end before another's, and their seats are then filled with copies.

    source_of, slot_of: [rows].
    """

    source_of: IntArray
    slot_of: IntArray
    width: int

    @classmethod
    def of(cls, source_of: IntArray) -> Seats:
        """source_of: [rows], ascending, every source from 0 on at least once."""
        counts = np.bincount(source_of)
        width = int(counts.max())
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        place = np.arange(len(source_of)) - first[source_of]
        return cls(source_of, source_of * width + place, width)

    @property
    def slots(self) -> int:
        return self.width * (int(self.source_of[-1]) + 1)

    @property
    def full(self) -> bool:
        return self.slots == len(self.slot_of)

    def filled(self, values: IntArray) -> IntArray:
        """[slots] for values [rows]; an empty seat gets what the first row of its source has."""
        if self.full:
            return values
        result = np.repeat(values[np.searchsorted(self.source_of, np.arange(self.slots // self.width))], self.width)
        result[self.slot_of] = values
        return result
