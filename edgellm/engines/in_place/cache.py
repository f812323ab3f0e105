"""The key/value cache: who owns the memory, how it grows, how rows move.

A cache holds, per layer and side (key, value), a buffer of [rows, num_kv_heads, capacity, head_dim], or one for both
sides where values are keys. A graph reads and writes it in place. `lengths[row]` tokens of a row are in use; the rest
of its capacity is undefined. Capacity follows the tokens in use, never the model's maximum context.

For a layer with a short convolution there is one of [rows, 1, slots, width]: what the convolution read of the last
tokens, token i in slot i modulo their number. So a row can be trimmed by as many tokens as these are, or else to where
its cache has remembered what the convolutions would read next: at each CONV_STEP tokens, and where a prompt ended.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgellm.errors import OutOfMemoryError, ProviderError
from edgellm.ort.binding import Binding
from edgellm.ort.library import Device
from edgellm.package.layouts import CONV_SLOTS, CONV_STEP
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


@dataclass
class Convolved:
    """What is there of what a row's convolutions read: of the tokens from `first` on that have not left their slots,
    and, by a number of tokens, what is to be read behind so many: [1, kernel - 1, width] of each convolution."""

    first: int = 0
    remembered: dict[int, list[Array]] = field(default_factory=dict)

    def copy(self) -> Convolved:
        return Convolved(self.first, dict(self.remembered))


class KVCache(ABC):
    """`version` changes whenever views taken before have become invalid. `remembers`: what convolutions read is kept to
    go back to."""

    device: Device
    remembers = False

    def __init__(self, layout: CacheLayout, max_length: int, chunk: int = CHUNK) -> None:
        """`chunk`: tokens that a run reads at most, but for one."""
        self.layout = layout
        self.max_length = max_length
        self.tensors = layout.tensors()
        self._convolved = [i for i, tensor in enumerate(self.tensors) if tensor.kernel]
        self._before = 0 if layout.conv is None else layout.conv.kernel - 1  # tokens that one reads besides its own
        self._most_slots = max(CONV_SLOTS, -(-(chunk + 1 + self._before) // CAPACITY_STEP) * CAPACITY_STEP)
        self._states: list[Convolved] = []
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
        kept = {id(each): each.nbytes for state in self._states for part in state.remembered.values() for each in part}
        return rows * slots + sum(kept.values())

    def slots(self, tensor: CacheTensor, capacity: int | None = None) -> int:
        """How many tokens of a row its buffer has, in one of so many tokens."""
        whole = self.capacity if capacity is None else capacity
        return min(whole, self._most_slots) if tensor.kernel else whole

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
        self._states = [Convolved() for _ in range(rows)]
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
        self._states = [*self._states, Convolved()]
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
            if self._convolved:
                self._has_read(row, count)
        assert max(self.lengths) <= self.capacity

    def trim(self, length: int, row: int | None = None) -> None:
        """Forget what lies beyond `length` tokens in every row, or in one; `restorable` says how many it has then."""
        for each in range(self.rows) if row is None else [row]:
            kept = self.restorable(length, each)
            if self._convolved and kept < self.lengths[each]:
                self._restore(each, kept)
            self.lengths[each] = kept
            del self._origins[each][kept:]

    def restorable(self, length: int, row: int = 0) -> int:
        """How many tokens `trim` to `length` leaves of a row: fewer where what its convolutions read next is gone."""
        length = min(length, self.lengths[row])
        if not self._convolved or length == self.lengths[row] or self._is_there(row, length):
            return length
        return max((tokens for tokens in self._states[row].remembered if tokens <= length), default=0)

    def remember(self, row: int) -> None:
        """Keep what the convolutions read behind a row's last token, to go back to it."""
        if self._convolved:
            self._remember(row, self.lengths[row])

    def reorder(self, parents: npt.ArrayLike) -> None:
        """New row i continues old row parents[i]; rows may be repeated, dropped or added."""
        chosen = np.asarray(parents, np.int64).tolist()
        if chosen and chosen != list(range(self.rows)):
            with _memory_errors(len(chosen), self.capacity):
                self._reorder(chosen)
            self.version += len(chosen) != self.rows
        self._states = [self._states[parent].copy() for parent in chosen]
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
        changes; of convolutions what they read behind the last token, [1, kernel - 1, size]."""
        return self._parts(row, 0, self.lengths[row])

    def taken(self, row: int, start: int, stop: int) -> tuple[Array, ...]:
        """A copy of the same of a row's tokens from `start` to `stop`, where `trim` could go back to."""
        return tuple(part.copy() for part in self._parts(row, start, stop))

    def give(self, row: int, known: Sequence[Array]) -> None:
        """Tokens behind those of a row, as `taken` has them."""
        start = self.lengths[row]
        stop = start + next(part.shape[1] for part, of in zip(known, self.tensors, strict=True) if not of.kernel)
        for tensor, buffer, part in zip(self.tensors, self._host_buffers(), known, strict=True):
            if not tensor.kernel:
                buffer[row, :, start:stop] = part
        self._write_convolved(row, stop, [known[i] for i in self._convolved])
        self.advance(stop - start, range(row, row + 1))

    @contextmanager
    def place(self, length: int, spare: int) -> Iterator[list[Array]]:
        """Start over with one row of `length` tokens and room for `spare` more. Yields its keys and values, as `used`
        has them, to be filled in."""
        self.reset(1, length + spare)
        with self._filled(length) as arrays:
            yield arrays
        self._states[0].first = max(0, length - self._before)
        self.advance(length)
        self.remember(0)

    def recall(self, other: KVCache) -> None:
        """Remember what the cache remembers whose row was taken over."""
        if self.remembers:
            self._states[0].remembered |= other._states[0].remembered

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

    def _is_there(self, row: int, length: int) -> bool:
        """Whether what convolutions read behind so many tokens is in its slots."""
        first = self._states[row].first
        return first == 0 or length - self._before >= first

    def _has_read(self, row: int, count: int) -> None:
        """The last `count` tokens of a row were written, over those that were in their slots."""
        length, state = self.lengths[row], self._states[row]
        state.first = max(state.first, length - self._most_slots)
        for tokens in range((length - count) // CONV_STEP * CONV_STEP + CONV_STEP, length + 1, CONV_STEP):
            self._remember(row, tokens)

    def _remember(self, row: int, tokens: int) -> None:
        if self.remembers and tokens and self._is_there(row, tokens):
            self._states[row].remembered[tokens] = self._read_convolved(row, tokens)

    def _restore(self, row: int, length: int) -> None:
        """Go back to where a row had so many tokens, which can be."""
        state = self._states[row]
        if not length:
            self._states[row] = Convolved()
        elif not self._is_there(row, length):
            self._write_convolved(row, length, state.remembered[length])
        for tokens in [tokens for tokens in state.remembered if tokens > length]:
            del state.remembered[tokens]

    def _parts(self, row: int, start: int, stop: int) -> list[Array]:
        convolved = iter(self._convolved_behind(row, stop))
        buffers = zip(self.tensors, self._host_buffers(), strict=True)
        return [next(convolved) if tensor.kernel else buffer[row, :, start:stop] for tensor, buffer in buffers]

    def _convolved_behind(self, row: int, tokens: int) -> list[Array]:
        found = self._states[row].remembered.get(tokens)
        if found is not None:
            return found
        assert not self._convolved or self._is_there(row, tokens)
        return self._read_convolved(row, tokens)

    def _slots_behind(self, tokens: int) -> Array:
        """Of those that convolutions read behind so many tokens."""
        return np.arange(max(0, tokens - self._before), tokens) % min(self.capacity, self._most_slots)

    def _read_convolved(self, row: int, tokens: int) -> list[Array]:
        """[1, kernel - 1, width] of each convolution, or less where there are not so many tokens; copies."""
        if not self._convolved:
            return []
        buffers, slots = self._host_buffers(), self._slots_behind(tokens)
        return [buffers[i][row][:, slots] for i in self._convolved]

    def _write_convolved(self, row: int, tokens: int, parts: Sequence[Array]) -> None:
        """The same put back; of tokens before these nothing is there then."""
        if not self._convolved:
            return
        buffers, slots = self._host_buffers(), self._slots_behind(tokens)
        for i, part in zip(self._convolved, parts, strict=True):
            buffers[i][row][:, slots] = part
        self._states[row].first = max(0, tokens - self._before)

    def _rounded(self, capacity: int) -> int:
        return min(-(-max(capacity, 1) // CAPACITY_STEP) * CAPACITY_STEP, self.max_length)

    @abstractmethod
    def _allocated_rows(self) -> int: ...

    def _more_rows(self, rows: int) -> int:
        """How many to allocate where `rows` are not enough."""
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
