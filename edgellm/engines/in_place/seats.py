"""Where rows sit in the batch of a decoder that wants the same number of rows for each source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgellm.types import IntArray


@dataclass(frozen=True)
class Seats:
    """Where the search's rows sit in the decoder's batch, which has `width` rows for each source: one source's rows may
    end before another's, and their seats are then filled with copies.

    source_of, slot_of: [rows]. `full`: the seats are the rows, one by one.
    """

    source_of: IntArray
    slot_of: IntArray
    width: int
    full: bool

    @classmethod
    def of(cls, source_of: IntArray) -> Seats:
        """source_of: [rows], every source from 0 on at least once."""
        counts, rows = np.bincount(source_of), np.arange(len(source_of))
        width = int(counts.max())
        place = np.empty_like(rows)  # of each row among those of its source
        place[np.argsort(source_of, kind="stable")] = rows - np.repeat(np.cumsum(counts) - counts, counts)
        slot_of = source_of * width + place
        return cls(source_of, slot_of, width, width * len(counts) == len(rows) and bool((slot_of == rows).all()))

    def filled(self, values: IntArray) -> IntArray:
        """[slots] for values [rows]; an empty seat gets what the first row of its source has."""
        if self.full:
            return values
        _, first = np.unique(self.source_of, return_index=True)
        result = np.repeat(values[first], self.width)
        result[self.slot_of] = values
        return result
