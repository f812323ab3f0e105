"""Rows of sources in a decoder's batch that has as many rows for each."""

import numpy as np
import pytest

from edgellm.engines.in_place.cohort import Seats


@pytest.mark.parametrize(
    ("source_of", "slot_of", "seated"),
    [
        ([0, 1, 2], [0, 1, 2], "abc"),
        ([0, 0, 1, 1], [0, 1, 2, 3], "abcd"),
        ([0, 1, 1], [0, 2, 3], "aabc"),
        ([1, 0], [1, 0], "ba"),
        ([1, 2, 0, 0, 0], [3, 6, 0, 1, 2], "cdeaaabbb"),
    ],
    ids=str,
)
def test_each_row_has_a_seat_of_its_source_and_empty_ones_hold_copies(source_of, slot_of, seated) -> None:
    seats = Seats.of(np.array(source_of))
    rows = np.array(list("abcde"[: len(source_of)]))
    assert seats.slot_of.tolist() == slot_of
    assert "".join(seats.filled(rows)) == seated
    assert seats.filled(rows)[seats.slot_of].tolist() == rows.tolist()
    assert seats.full == (seated == "".join(rows))
