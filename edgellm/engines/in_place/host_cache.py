"""A cache in main memory."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from edgellm.engines.in_place.cache import CHUNK, KVCache
from edgellm.ort.library import Device
from edgellm.package.manifest import CacheLayout, CacheTensor
from edgellm.system.memory import release_pages
from edgellm.types import Array

ALIGNMENT = 64  # bytes: a cache line, and the widest vector registers
FEW_ROWS = 8  # for which there is room as soon as there is a second
MUCH_BYTES = 1 << 30  # of buffers, used or not
SCRATCH = -1  # in a copy plan: the spare row
STALE_BYTES = 64 << 20  # of rows that have left: more than that, and than what is in use, is given back


class HostCache(KVCache):
    """Buffers in main memory, committed by the operating system page by page as tokens arrive."""

    device: Device = "cpu"
    remembers = True

    def __init__(self, layout: CacheLayout, max_length: int, chunk: int = CHUNK) -> None:
        super().__init__(layout, max_length, chunk)
        self._buffers: list[Array] = []  # each [rows, heads, slots, size]
        self._touched: list[int] = []  # tokens of each place for a row whose pages may be there

    def reset(self, rows: int, capacity: int) -> None:
        self._note_touched(self.lengths)
        super().reset(rows, capacity)

    def _allocated_rows(self) -> int:
        return len(self._buffers[0]) if self._buffers else 0

    def _addresses(self) -> Sequence[int]:
        return [buffer.ctypes.data for buffer in self._buffers]

    def _free(self) -> None:
        self._buffers = []

    def _allocate(self, rows: int, capacity: int) -> None:
        self._buffers = [self._empty(each, rows, self.slots(each, capacity)) for each in self.tensors]
        self._touched = [0] * rows

    def _more_rows(self, rows: int, capacity: int) -> int:
        """Four times as many: those that are not used take next to no memory, and making room copies all of it. Twice
        as many where that is much: some systems promise no more than they have."""
        many = max(FEW_ROWS, 4 * rows)
        return many if many * self.layout.row_bytes(capacity) <= MUCH_BYTES else 2 * rows

    def _grow(self, rows: int, capacity: int) -> None:
        self._rebuild(range(self.rows), rows, capacity)

    def _reorder(self, parents: Sequence[int]) -> None:
        self._note_touched(self.lengths)
        self._move(parents)
        lengths = [self.lengths[parent] for parent in parents]
        self._note_touched(lengths)
        self._release_stale(lengths)

    def _move(self, parents: Sequence[int]) -> None:
        if len(parents) > self._allocated_rows():
            self._rebuild(parents, len(parents), self.capacity)
            return
        plan = [(target, source, self._difference(parents, target, source)) for target, source in copy_plan(parents)]
        in_a_circle = any(target == SCRATCH for target, _, _ in plan)
        whole = [self._whole(parents, target, source) for target, source, _ in plan]
        for tensor, buffer in zip(self.tensors, self._buffers, strict=True):
            spare = np.empty_like(buffer[0]) if in_a_circle else None
            for (target, source, difference), all_of_it in zip(plan, whole, strict=True):
                tokens = slice(None) if tensor.recurrent and all_of_it else difference
                to, of = (spare if i == SCRATCH else buffer[i] for i in (target, source))
                assert to is not None
                assert of is not None
                to[:, tokens] = of[:, tokens]

    def _note_touched(self, lengths: Sequence[int]) -> None:
        """Before rows that have these lengths become others, or after."""
        rest = self._touched[len(lengths) :]
        self._touched = [*map(max, self._touched, lengths), *rest]

    def _release_stale(self, lengths: Sequence[int]) -> None:
        """Give back what lies behind rows of these lengths, and in places without a row, where it is much."""
        token_bytes = self.layout.bytes_per_token()
        stale = (sum(self._touched) - sum(lengths)) * token_bytes
        if stale <= max(STALE_BYTES, sum(lengths) * token_bytes):
            return
        used = [*lengths, *[0] * (len(self._touched) - len(lengths))]
        buffers = zip(self.tensors, self._buffers, strict=True)
        for buffer in (buffer for tensor, buffer in buffers if not tensor.recurrent):
            for place, kept, touched in zip(buffer, used, self._touched, strict=True):
                for head in place:
                    release_pages(head[kept:].ctypes.data, head[kept:touched].nbytes)
        self._touched = used

    def _host_buffers(self) -> Sequence[Array]:
        return self._buffers

    @contextmanager
    def _filled(self, length: int) -> Iterator[list[Array]]:
        arrays = [
            np.empty((tensor.heads, self.recurrent.part_slots(tensor, length), tensor.size), tensor.array_dtype)
            if tensor.recurrent
            else buffer[0, :, :length]
            for tensor, buffer in zip(self.tensors, self._buffers, strict=True)
        ]
        yield arrays
        self.recurrent.write(0, length, [arrays[i] for i in self.recurrent.tensors], self._host_buffers)

    def _whole(self, parents: Sequence[int], target: int, source: int) -> bool:
        """Whether a copy of a copy plan must move all slots of what convolutions and states read."""
        rows = [parents[target] if source == SCRATCH else source, target if target != SCRATCH else source]
        slots, recurrent = min(self.capacity, self.recurrent.most_slots), self.recurrent
        return any(row < self.rows and recurrent.went_round(row, self.lengths[row], slots) for row in rows)

    def _difference(self, parents: Sequence[int], target: int, source: int) -> slice:
        """The tokens that a copy of a copy plan must move: not those at the start that the target has already."""
        wanted = self._origins[source if target == SCRATCH else parents[target]]
        present = self._origins[target] if SCRATCH < target < self.rows else []
        return slice(_common_prefix(wanted, present), len(wanted))

    def _rebuild(self, parents: Sequence[int], rows: int, capacity: int) -> None:
        """New buffers of `rows` rows, one after the other, so that at most one exists twice."""
        for i, old in enumerate(self._buffers):
            tensor = self.tensors[i]
            if tensor.slots and rows == len(old) and list(parents) == list(range(len(parents))):
                continue  # it does not grow with its rows
            new = self._empty(tensor, rows, self.slots(tensor, capacity))
            for row, parent in enumerate(parents):
                used = tensor.slots or min(self.lengths[parent], new.shape[2], old.shape[2])
                new[row, :, :used] = old[parent, :, :used]
            self._buffers[i] = new
            del old
        self._touched = [0] * rows

    def _empty(self, tensor: CacheTensor, rows: int, capacity: int) -> Array:
        size = rows * capacity * tensor.bytes_per_token
        memory = np.empty(size + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        whole = memory[start : start + size].view(tensor.array_dtype)
        return whole.reshape(rows, tensor.heads, capacity, tensor.size)


def copy_plan(parents: Sequence[int]) -> list[tuple[int, int]]:
    """Copies (target, source), in an order in which no source is overwritten before it was read.

    Rows that keep their place are not copied. Where rows change places in a circle, one passes through SCRATCH.
    """
    pending = {row: parent for row, parent in enumerate(parents) if row != parent}
    readers = Counter(pending.values())
    free = [row for row in pending if not readers[row]]
    plan: list[tuple[int, int]] = []
    while pending:
        if not free:  # only circles are left: each row has exactly one reader
            row = next(iter(pending))
            plan.append((SCRATCH, row))
            pending[next(r for r, parent in pending.items() if parent == row)] = SCRATCH
            free.append(row)
        row = free.pop()
        source = pending.pop(row)
        plan.append((row, source))
        readers[source] -= 1
        if source in pending and not readers[source]:
            free.append(source)
    return plan


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    lengths = range(1, min(len(a), len(b)) + 1)
    return bisect_left(lengths, True, key=lambda length: a[:length] != b[:length])
