"""The key/value cache: who owns the memory, how it grows, how rows move.

A cache holds, per layer and side (key, value), a buffer of [rows, num_kv_heads, capacity, head_dim], or one for both
sides where values are keys. A graph reads and writes it in place. `lengths[row]` tokens of a row are in use; the rest
of its capacity is undefined. Capacity follows the tokens in use, never the model's maximum context.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.errors import OutOfMemoryError, ProviderError
from edgellm.ort.binding import Binding
from edgellm.ort.library import Device
from edgellm.package.manifest import CacheLayout
from edgellm.types import Array

CAPACITY_STEP = 64  # tokens


@dataclass(frozen=True)
class CacheView:
    """Where the buffers of some rows lie: one address each, layer by layer, key before value."""

    shape: tuple[int, int, int, int]  # [rows, num_kv_heads, capacity, head_dim]
    addresses: tuple[int, ...]


class KVCache(ABC):
    """`version` changes whenever views taken before have become invalid."""

    device: Device

    def __init__(self, layout: CacheLayout, max_length: int) -> None:
        self.layout = layout
        self.max_length = max_length
        self.dtype = np.dtype(layout.array_dtype)
        self.names = layout.buffers()
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
        return self._allocated_rows() * self.capacity * self.layout.bytes_per_token()

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
        self.version += 1

    def insert(self, capacity: int) -> None:
        """An empty row behind the others, all of which hold at least `capacity` tokens then."""
        if not self.rows:
            self.reset(1, capacity)
            return
        capacity = max(self.capacity, self._rounded(capacity))
        rows = self._allocated_rows()
        if self.rows == rows or capacity > self.capacity:
            rows = rows if self.rows < rows else self._more_rows(rows)
            with _memory_errors(rows, capacity):
                self._grow(rows, capacity)
            self.capacity = capacity
        self.lengths = [*self.lengths, 0]
        self._origins = [*self._origins, []]
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
        assert max(self.lengths) <= self.capacity

    def trim(self, length: int, row: int | None = None) -> None:
        """Forget what lies beyond `length` tokens in every row, or in one."""
        self.lengths = [min(n, length) if row in (None, i) else n for i, n in enumerate(self.lengths)]
        for origins in self._origins if row is None else [self._origins[row]]:
            del origins[length:]

    def reorder(self, parents: npt.ArrayLike) -> None:
        """New row i continues old row parents[i]; rows may be repeated, dropped or added."""
        chosen = np.asarray(parents, np.int64).tolist()
        if chosen and chosen != list(range(self.rows)):
            with _memory_errors(len(chosen), self.capacity):
                self._reorder(chosen)
            self.version += len(chosen) != self.rows
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
        """Keys and values of a row in the order of `names`, [num_kv_heads, tokens, head_dim] each, to be read until the
        cache changes."""
        length = self.lengths[row]
        return [buffer[row, :, :length] for buffer in self._host_buffers()]

    def give(self, row: int, known: Array) -> None:
        """Tokens behind those of a row, as `used` has them: [buffers, num_kv_heads, tokens, head_dim]."""
        start, count = self.lengths[row], known.shape[2]
        for buffer, part in zip(self._host_buffers(), known, strict=True):
            buffer[row, :, start : start + count] = part
        self.advance(count, range(row, row + 1))

    @contextmanager
    def place(self, length: int, spare: int) -> Iterator[list[Array]]:
        """Start over with one row of `length` tokens and room for `spare` more. Yields its keys and values, as `used`
        has them, to be filled in."""
        self.reset(1, length + spare)
        with self._filled(length) as arrays:
            yield arrays
        self.advance(length)

    def _resize(self, capacity: int) -> None:
        with _memory_errors(self.rows, capacity):
            self._grow(self.rows, capacity)
        self.capacity = capacity
        self.version += 1

    def bind(self, binding: Binding, rows: range) -> None:
        """Bind some rows as past and present of the graph."""
        view = self.view(rows)
        for names, address in zip(self.names, view.addresses, strict=True):
            for past, present in names:
                binding.address(past, present, self.device, self.dtype, view.shape, address)

    def view(self, rows: range) -> CacheView:
        """Some rows: the first ones, or one for a prefill: graphs take several tokens only in a batch of one."""
        shape = (len(rows), self.layout.num_kv_heads, self.capacity, self.layout.head_dim)
        row_bytes = math.prod(shape[1:]) * self.dtype.itemsize
        return CacheView(shape, tuple(address + rows.start * row_bytes for address in self._addresses()))

    def _rounded(self, capacity: int) -> int:
        return min(-(-max(capacity, 1) // CAPACITY_STEP) * CAPACITY_STEP, self.max_length)

    @abstractmethod
    def _allocated_rows(self) -> int: ...

    def _more_rows(self, rows: int) -> int:
        """How many to allocate where `rows` are not enough."""
        return rows + 1

    @abstractmethod
    def _addresses(self) -> Sequence[int]:
        """Of row 0 of each buffer, in the order of `names`."""

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
        """In the order of `names`, in main memory: [rows, num_kv_heads, capacity, head_dim]."""

    @abstractmethod
    def _filled(self, length: int) -> AbstractContextManager[list[Array]]:
        """Arrays to fill in, [num_kv_heads, length, head_dim] each: what row 0 holds at the end."""


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
