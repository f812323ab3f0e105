"""Caches with state spaces, against plain lists of tokens: a state is that of all of its row's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.engines.in_place.host_cache import HostCache
from edgellm.errors import OptionError
from edgellm.package.layouts import STATES_KEPT, CacheLayout, StateLayout

MAX_LENGTH = 300
STATES = StateLayout((0, 2), width=10, kernel=4, num_heads=2, head_dim=4, state_size=3)
HYBRID = CacheLayout(num_layers=3, num_kv_heads=2, head_dim=4, dtype="float32", states=STATES)
ALONE = replace(HYBRID, num_layers=2, num_kv_heads=1, head_dim=1, states=replace(STATES, layers=(0, 1)))


def sum_of(tokens: Sequence[int]) -> int:
    """A number that the order and all of the tokens decide, and no other few."""
    total = 0
    for token in tokens:
        total = (total * 31 + token) % 100_003
    return total


class Rows:
    """What the cache should hold."""

    def __init__(self, layout: CacheLayout, rows: int) -> None:
        self.cache = HostCache(layout, MAX_LENGTH)
        self.cache.reset(rows, 10)
        for buffer in self.cache._buffers:
            buffer[...] = np.nan
        self.rows: list[list[int]] = [[] for _ in range(rows)]
        self._next = 1

    def write(self, row: int, count: int) -> None:
        """As a graph does."""
        if not count:
            return
        start = len(self.rows[row])
        self.cache.reserve(start + count)
        self.rows[row] += range(self._next, self._next + count)
        self._next += count
        for slot, (tensor, buffer) in enumerate(zip(self.cache.tensors, self.cache._buffers, strict=True)):
            if tensor.slots:
                buffer[row] = sum_of(self.rows[row]) + slot
            else:
                buffer[row][:, start : start + count] = np.array(self.rows[row][start:])[:, None] + slot
        self.cache.advance(count, range(row, row + 1))

    def trim(self, wanted: int, row: int) -> None:
        kept = self.cache.restorable(wanted, row)
        assert kept <= wanted
        self.cache.trim(wanted, row)
        self.rows[row] = self.rows[row][:kept]

    def reorder(self, parents: Sequence[int]) -> None:
        self.cache.reorder(parents)
        self.rows = [list(self.rows[parent]) for parent in parents]

    def insert(self) -> None:
        self.cache.insert(10)
        self.rows.append([])

    def check(self) -> None:
        assert self.cache.lengths == [len(row) for row in self.rows]
        for slot, (tensor, buffer) in enumerate(zip(self.cache.tensors, self.cache._buffers, strict=True)):
            assert self.cache.views(range(self.cache.rows))[slot].shape == (len(self.rows), *buffer.shape[1:])
            for row, tokens in enumerate(self.rows):
                if tensor.slots and tokens:
                    np.testing.assert_array_equal(buffer[row], sum_of(tokens) + slot)
                elif tokens:
                    expected = np.array(tokens)[None, :, None] + slot
                    np.testing.assert_array_equal(buffer[row][:, : len(tokens)] - expected, 0)


@pytest.mark.parametrize("layout", [HYBRID, ALONE], ids=["hybrid", "alone"])
@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["write", "trim", "reorder", "insert", "prompt"]), st.integers(0, 10**6)),
        max_size=14,
    )
)
def test_states_are_those_of_their_rows(layout: CacheLayout, steps: list[tuple[str, int]]) -> None:
    rows = Rows(layout, 2)
    for what, number in steps:
        row = number % len(rows.rows)
        if what in ("write", "prompt"):
            rows.write(row, min(number % 90, MAX_LENGTH - len(rows.rows[row])))
            if what == "prompt":
                rows.cache.remember(row)
        elif what == "trim":
            rows.trim(number // 7 % (len(rows.rows[row]) + 1), row)
        elif what == "insert":
            rows.insert()
        else:
            rows.reorder([parent % len(rows.rows) for parent in (row, number // 3, number // 11)])
        rows.check()


def test_a_row_goes_back_to_where_prompts_ended() -> None:
    rows = Rows(HYBRID, 1)
    for _ in range(STATES_KEPT + 1):
        rows.write(0, 20)
        rows.cache.remember(0)
        rows.write(0, 5)
    cache, found = rows.cache, {}
    for length in (75, 74, 70, 69, 45, 44, 20):
        found[length] = cache.restorable(length)
    assert found == {75: 75, 74: 70, 70: 70, 69: 45, 45: 45, 44: 0, 20: 0}  # the first one's is forgotten
    rows.trim(50, 0)
    rows.check()
    assert len(rows.rows[0]) == 45
    rows.write(0, 7)
    rows.check()
    assert cache.restorable(51) == 45


def test_memory_does_not_grow_with_tokens() -> None:
    rows = Rows(ALONE, 1)
    before = rows.cache.nbytes
    assert before == STATES.bytes_per_row == 2 * 4 * (3 * 10 + 2 * 4 * 3)
    rows.write(0, 250)
    assert rows.cache.nbytes == before
    rows.cache.remember(0)
    assert rows.cache.nbytes == 2 * before
    assert ALONE.row_bytes(1) == ALONE.row_bytes(10**6) == (1 + STATES_KEPT) * before
    assert (ALONE.bytes_per_token(), HYBRID.bytes_per_token()) == (0, 2 * 2 * 4 * 4)


@pytest.mark.parametrize("layout", [HYBRID, ALONE], ids=["hybrid", "alone"])
@pytest.mark.parametrize("length", [0, 1, 40])
def test_another_cache_takes_a_row_over(layout: CacheLayout, length: int) -> None:
    rows = Rows(layout, 1)
    rows.write(0, length // 2)
    rows.cache.remember(0)
    rows.write(0, length - length // 2)
    other = Rows(layout, 2)
    with other.cache.place(length, 10) as arrays:
        for to, of in zip(arrays, rows.cache.used(), strict=True):
            assert to.shape == of.shape
            to[...] = of
    other.cache.recall(rows.cache)
    other.rows = [list(rows.rows[0])]
    other.check()
    other.trim(length // 2 + length // 4, 0)
    assert len(other.rows[0]) == length // 2
    other.check()
    rows.check()


def test_no_bfloat16_without_keys() -> None:
    assert HYBRID.as_bfloat16().tensors()[0].dtype == "float32"
    with pytest.raises(OptionError, match="no layer of the package has keys and values"):
        ALONE.as_bfloat16()
