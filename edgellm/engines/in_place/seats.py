"""Where rows sit in the batch of a decoder that wants the same number of rows for each source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgellm.types import IntArray


@dataclass(frozen=True)
class Seats:
    """The decoder's batch has `width` rows for each source: one source's rows may end before another's, and their seats
    are then filled with copies.

    source_of, slot_of: [rows]. first_of: [sources], a row of each. full: the seats are the rows, one by one.
    """

    source_of: IntArray
    slot_of: IntArray
    first_of: IntArray
    width: int
    full: bool

    @classmethod
    def of(cls, source_of: IntArray) -> Seats:
        """source_of: [rows], every source from 0 on at least once."""
        counts = np.bincount(source_of)
        width = int(counts.max())
        rows, order = np.arange(len(source_of)), source_of.argsort(kind="stable")
        starts = counts.cumsum() - counts
        slot_of = np.empty(len(rows), np.int64)
        slot_of[order] = rows + (np.arange(len(counts)) * width - starts).repeat(counts)
        full = width * len(counts) == len(rows) and slot_of.tobytes() == rows.tobytes()
        return cls(source_of, slot_of, order[starts], width, full)

    def filled(self, values: IntArray) -> IntArray:
        """[seats] for values [rows]; an empty seat gets what the first row of its source has."""
        if self.full:
            return values
        result = values[self.first_of].repeat(self.width)
        result[self.slot_of] = values
        return result
