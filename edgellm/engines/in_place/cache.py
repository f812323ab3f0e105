"""The key/value cache: who owns the memory, how it grows, how rows move.

A cache holds, per layer and side (key, value), a buffer of [rows, num_kv_heads, capacity, head_dim], or one for both
sides where values are keys. A graph reads and writes it in place. `lengths[row]` tokens of a row are in use; the rest
of its capacity is undefined. Capacity follows the tokens in use, never the model's maximum context.
What layers with a short convolution or a state space have instead is in `recurrent`, `convolutions` and `states`.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.engines.in_place.convolutions import Convolutions
from edgellm.engines.in_place.recurrent import Recurrent
from edgellm.engines.in_place.states import States
from edgellm.errors import OutOfMemoryError, ProviderError
from edgellm.ort.binding import Binding
from edgellm.ort.library import Device
from edgellm.package.manifest import CacheLayout, CacheTensor
from edgellm.types import Array

CAPACITY_STEP = 64  # tokens
CHUNK = 128  # tokens that a run reads at most, if nobody says another number


@dataclass(frozen=True)
class View:
    """Where the buffer of a tensor has some rows."""

    tensor: CacheTensor
    shape: tuple[int, int, int, int]  # [rows, heads, slots, size]
    address: int


class KVCache(ABC):
    """`version` changes whenever views taken before have become invalid. `remembers`: what convolutions
    and states read is kept to go back to."""

    device: Device
    remembers = False

    def __init__(self, layout: CacheLayout, max_length: int, chunk: int = CHUNK) -> None:
        """`chunk`: tokens that a run reads at most, but for one."""
        self.layout = layout
        self.max_length = max_length
        self.tensors = layout.tensors()
        self.recurrent: Recurrent = (
            Convolutions(layout, chunk=chunk, remembers=self.remembers)
            if layout.states is None
            else States(layout, remembers=self.remembers)
        )
        self.lengths: list[int] = []
        self.capacity = 0
        self.version = 0
        self._origins: list[list[int]] = []  # of each row's tokens: equal numbers mean that one was copied
        self._new_origins = itertools.count()

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of address space that the buffers take; the operating system commits host memory as it is used."""
        rows = self._allocated_rows()
        slots = sum(self.slots(tensor) * tensor.bytes_per_token for tensor in self.tensors)
        return rows * slots + self.recurrent.nbytes

    def slots(self, tensor: CacheTensor, capacity: int | None = None) -> int:
        """How many tokens of a row its buffer has, in one of so many tokens."""
        whole = self.capacity if capacity is None else capacity
        return self.recurrent.slots(tensor, whole) if tensor.recurrent else whole

    def reset(self, rows: int, capacity: int) -> None:
        """Start over with `rows` empty rows that hold at least `capacity` tokens each."""
        capacity = self._rounded(capacity)
        if rows > self._allocated_rows() or not capacity <= self.capacity <= 4 * capacity:
            with _memory_errors(rows, capacity):
                self._free()
                self._allocate(rows, capacity)
            self.capacity = capacity
        self.lengths = [0] * rows
        self._origins = [[] for _ in range(rows)]
        self.recurrent.begin(rows)
        self.version += 1

    def insert(self, capacity: int) -> None:
        """An empty row behind the others, all of which hold at least `capacity` tokens then."""
        if not self.rows:
            self.reset(1, capacity)
            return
        capacity = max(self.capacity, self._rounded(capacity))
        rows = self._allocated_rows()
        if self.rows == rows or capacity > self.capacity:
            rows = rows if self.rows < rows else self._more_rows(rows, capacity)
            with _memory_errors(rows, capacity):
                self._grow(rows, capacity)
            self.capacity = capacity
        self.lengths = [*self.lengths, 0]
        self._origins = [*self._origins, []]
        self.recurrent.insert()
        self.version += 1

    def reserve(self, length: int) -> None:
        """Make room for rows of `length` tokens, by doubling so that growing token by token costs little."""
        if length <= self.capacity:
            return
        self._resize(self._rounded(max(length, 2 * self.capacity)))

    def advance(self, count: int, rows: range | None = None) -> None:
        """`count` tokens were written behind the used part of every row, or of some."""
        for row in range(self.rows) if rows is None else rows:
            self.lengths[row] += count
            self._origins[row].extend(itertools.islice(self._new_origins, count))
            if self.recurrent:
                self.recurrent.has_read(row, self.lengths[row], count, self._host_buffers)
        assert max(self.lengths) <= self.capacity

    def trim(self, length: int, row: int | None = None) -> None:
        """Forget what lies beyond `length` tokens in every row, or in one; `restorable` says how many it has then."""
        for each in range(self.rows) if row is None else [row]:
            kept = self.restorable(length, each)
            if self.recurrent and kept < self.lengths[each]:
                self.recurrent.restore(each, kept, self._host_buffers)
            self.lengths[each] = kept
            del self._origins[each][kept:]

    def restorable(self, length: int, row: int = 0) -> int:
        """How many tokens `trim` to `length` leaves of a row: fewer where what its layers read next is gone."""
        return self.recurrent.restorable(row, self.lengths[row], min(length, self.lengths[row]))

    def remember(self, row: int) -> None:
        """Keep what is read behind a row's last token, to go back to it."""
        if self.recurrent:
            self.recurrent.remember(row, self.lengths[row], self._host_buffers)

    def reorder(self, parents: npt.ArrayLike) -> None:
        """New row i continues old row parents[i]; rows may be repeated, dropped or added."""
        chosen = np.asarray(parents, np.int64).tolist()
        if chosen and chosen != list(range(self.rows)):
            with _memory_errors(len(chosen), self.capacity):
                self._reorder(chosen)
            self.version += len(chosen) != self.rows
        self.recurrent.reorder(chosen)
        self.lengths = [self.lengths[parent] for parent in chosen]
        self._origins = [list(self._origins[parent]) for parent in chosen]

    def compact(self) -> None:
        """Free the memory of rows that are not in use."""
        if self._allocated_rows() > self.rows:
            self._resize(self.capacity)

    def limit(self, max_length: int) -> None:
        """From now on no row takes the memory of more than `max_length` tokens; what lies beyond is forgotten."""
        self.max_length = max_length
        self.trim(max_length)
        if self.capacity > max_length:
            self._resize(max_length)

    def used(self, row: int = 0) -> list[Array]:
        """Keys and values of a row in the order of `tensors`, [heads, tokens, size] each, to be read until the cache
        changes; of convolutions and states what they read behind the last token, [heads, slots, size]."""
        return self._parts(row, 0, self.lengths[row])

    def taken(self, row: int, start: int, stop: int) -> tuple[Array, ...]:
        """A copy of the same of a row's tokens from `start` to `stop`, where `trim` could go back to."""
        return tuple(part.copy() for part in self._parts(row, start, stop))

    def give(self, row: int, known: Sequence[Array]) -> None:
        """Tokens behind those of a row, as `taken` has them."""
        start = self.lengths[row]
        stop = start + next(part.shape[1] for part, of in zip(known, self.tensors, strict=True) if not of.recurrent)
        for tensor, buffer, part in zip(self.tensors, self._host_buffers(), known, strict=True):
            if not tensor.recurrent:
                buffer[row, :, start:stop] = part
        self.recurrent.write(row, stop, [known[i] for i in self.recurrent.tensors], self._host_buffers)
        self.advance(stop - start, range(row, row + 1))

    @contextmanager
    def place(self, length: int, spare: int) -> Iterator[list[Array]]:
        """Start over with one row of `length` tokens and room for `spare` more. Yields its keys and values, as `used`
        has them, to be filled in."""
        self.reset(1, length + spare)
        with self._filled(length) as arrays:
            yield arrays
        self.recurrent.starts_behind(0, length)
        self.advance(length)
        self.remember(0)

    def recall(self, other: KVCache) -> None:
        """Remember what the cache remembers whose row was taken over."""
        self.recurrent.recall(0, other.recurrent.rows[0])

    def _resize(self, capacity: int) -> None:
        with _memory_errors(self.rows, capacity):
            self._grow(self.rows, capacity)
        self.capacity = capacity
        self.version += 1

    def bind(self, binding: Binding, rows: range) -> None:
        """Bind some rows as past and present of the graph."""
        for view in self.views(rows):
            tensor = view.tensor
            for past, present in tensor.ports:
                binding.address(past, present, self.device, tensor.array_dtype, view.shape, view.address)

    def views(self, rows: range) -> list[View]:
        """Some rows: the first ones, or one for a prefill: graphs take several tokens only in a batch of one."""
        places = zip(self.tensors, self._addresses(), strict=True)
        return [
            View(
                each,
                (len(rows), each.heads, self.slots(each), each.size),
                address + rows.start * self.slots(each) * each.bytes_per_token,
            )
            for each, address in places
        ]

    def _parts(self, row: int, start: int, stop: int) -> list[Array]:
        found = iter(self.recurrent.behind(row, stop, self._host_buffers))
        buffers = zip(self.tensors, self._host_buffers(), strict=True)
        return [next(found) if tensor.recurrent else buffer[row, :, start:stop] for tensor, buffer in buffers]

    def _rounded(self, capacity: int) -> int:
        return min(-(-max(capacity, 1) // CAPACITY_STEP) * CAPACITY_STEP, self.max_length)

    @abstractmethod
    def _allocated_rows(self) -> int: ...

    def _more_rows(self, rows: int, capacity: int) -> int:
        """How many to allocate, of `capacity` tokens each, where `rows` are not enough."""
        return rows + 1

    @abstractmethod
    def _addresses(self) -> Sequence[int]:
        """Of row 0 of each buffer, in the order of `tensors`."""

    @abstractmethod
    def _free(self) -> None: ...

    @abstractmethod
    def _allocate(self, rows: int, capacity: int) -> None: ...

    @abstractmethod
    def _grow(self, rows: int, capacity: int) -> None:
        """Move the used part of every row into buffers of `rows` rows, which are no fewer, of `capacity` tokens."""

    @abstractmethod
    def _reorder(self, parents: Sequence[int]) -> None: ...

    @abstractmethod
    def _host_buffers(self) -> Sequence[Array]:
        """In the order of `tensors`, in main memory: [rows, heads, slots, size]."""

    @abstractmethod
    def _filled(self, length: int) -> AbstractContextManager[list[Array]]:
        """Arrays to fill in, as `used` has them: what row 0 holds at the end."""


@contextmanager
def _memory_errors(rows: int, length: int) -> Iterator[None]:
    """Turns a failed allocation into an OutOfMemoryError that says how to need less."""
    try:
        yield
    except (MemoryError, ProviderError) as error:
        raise OutOfMemoryError(
            f"no memory for a cache of {rows} rows of {length} tokens; "
            "use a shorter prompt, fewer max_new_tokens, or fewer rows or beams"
        ) from error
