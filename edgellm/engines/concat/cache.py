"""The key/value cache of graphs that concatenate: a run takes the past, and gives it back with the new tokens behind.

The verbs are those of `edgellm.engines.in_place.cache`; memory belongs to the runs' outputs, which nothing writes to.
Rows that run together are a block, [rows, num_kv_heads, length, head_dim] per layer and side, in which the tokens of a
row come last: what is before those of a shorter row is padding, which the attention mask hides. Right-aligned, because
masks of sliding windows count places, and this way tokens are as far apart as their places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgellm.ort.binding import AnyArray, array_of
from edgellm.package.manifest import CacheLayout
from edgellm.types import Array


@dataclass(frozen=True, eq=False)
class Block:
    """The past of rows that run together. tensors: each [rows, num_kv_heads, length, head_dim], in the order of
    `names`."""

    rows: int
    length: int
    tensors: tuple[AnyArray, ...]


@dataclass(frozen=True)
class Place:
    """Where a row is: its last token lies before `stop` in row `index` of `block`."""

    block: Block
    index: int
    stop: int


class ConcatCache:
    """Rows are moved when they are next asked for, so reordering and trimming by themselves copy nothing."""

    def __init__(self, layout: CacheLayout) -> None:
        self.layout = layout
        self.dtype = np.dtype(layout.dtype)
        self.names = layout.names()
        self.lengths: list[int] = []
        self._places: list[Place] = []

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        blocks = {id(place.block): place.block for place in self._places}
        return sum(block.rows * block.length for block in blocks.values()) * self.layout.bytes_per_token()

    def reset(self, rows: int) -> None:
        """Start over with `rows` empty rows."""
        self.lengths = [0] * rows
        self._places = [self._nowhere()] * rows

    def insert(self, capacity: int) -> None:
        """An empty row behind the others. `capacity`: has no meaning here."""
        self.lengths = [*self.lengths, 0]
        self._places = [*self._places, self._nowhere()]

    def row(self, row: int) -> Block:
        """One row by itself, for a prefill."""
        return self.together([row])

    def together(self, rows: Sequence[int]) -> Block:
        """Some rows as one block, as long as the longest of them; made now unless they are one already."""
        places = [self._places[row] for row in rows]
        lengths = [self.lengths[row] for row in rows]
        longest = max(lengths)
        block = places[0].block
        whole = [Place(block, index, longest) for index in range(block.rows)]
        if longest == block.length and places == whole:
            return block
        tensors = tuple(self._gathered(i, places, lengths) for i in range(len(self.names)))
        block = Block(len(rows), longest, tensors)
        for index, row in enumerate(rows):
            self._places[row] = Place(block, index, longest)
        return block

    def advance(self, rows: Sequence[int], presents: Sequence[AnyArray], count: int) -> None:
        """`presents` hold what `together(rows)` held, and `count` tokens of each row behind it."""
        block = Block(len(rows), presents[0].shape[2], tuple(presents))
        for index, row in enumerate(rows):
            self.lengths[row] += count
            self._places[row] = Place(block, index, block.length)

    def trim(self, length: int, row: int | None = None) -> None:
        """Forget what lies beyond `length` tokens in every row, or in one."""
        for i in range(self.rows) if row is None else [row]:
            surplus = max(0, self.lengths[i] - length)
            self.lengths[i] -= surplus
            self._places[i] = replace(self._places[i], stop=self._places[i].stop - surplus)

    def restorable(self, length: int, row: int = 0) -> int:
        """What `trim` would leave of a row."""
        return min(length, self.lengths[row])

    def reorder(self, parents: npt.ArrayLike) -> None:
        """New row i continues old row parents[i]; rows may be repeated, dropped or added."""
        chosen = np.asarray(parents, np.int64).tolist()
        self.lengths = [self.lengths[parent] for parent in chosen]
        self._places = [self._places[parent] for parent in chosen]

    def compact(self) -> None:
        """Free the memory of rows that are not in use, and of tokens that were forgotten."""
        for row in range(self.rows):
            self.row(row)

    def limit(self, max_length: int) -> None:
        """Forget what lies beyond; memory follows the tokens by itself."""
        self.trim(max_length)

    def used(self, row: int = 0) -> list[Array]:
        """Keys and values of a row in the order of `names`, [num_kv_heads, tokens, head_dim] each, to be read."""
        place, length = self._places[row], self.lengths[row]
        return [array_of(tensor)[place.index, :, place.stop - length : place.stop] for tensor in place.block.tensors]

    def recall(self, other: ConcatCache) -> None:
        """Nothing more is needed to trim a row."""

    @contextmanager
    def place(self, length: int, spare: int) -> Iterator[list[Array]]:
        """Start over with one row of `length` tokens. Yields its keys and values, as `used` has them, to be filled in.
        `spare`: has no meaning here."""
        shape = (1, self.layout.num_kv_heads, length, self.layout.head_dim)
        tensors = tuple(np.empty(shape, self.dtype) for _ in self.names)
        yield [tensor[0] for tensor in tensors]
        self.lengths = [length]
        self._places = [Place(Block(1, length, tensors), 0, length)]

    def _nowhere(self) -> Place:
        shape = (1, self.layout.num_kv_heads, 0, self.layout.head_dim)
        return Place(Block(1, 0, tuple(np.empty(shape, self.dtype) for _ in self.names)), 0, 0)

    def _gathered(self, tensor: int, places: Sequence[Place], lengths: Sequence[int]) -> Array:
        longest = max(lengths)
        blocks, stops = {id(place.block) for place in places}, {place.stop for place in places}
        if len(blocks) == len(stops) == 1:
            stop = places[0].stop
            indices = [place.index for place in places]
            return np.ascontiguousarray(array_of(places[0].block.tensors[tensor])[indices, :, stop - longest : stop])
        shape = (len(places), self.layout.num_kv_heads, longest, self.layout.head_dim)
        gathered = np.zeros(shape, self.dtype)
        for row, place, length in zip(gathered, places, lengths, strict=True):
            source = array_of(place.block.tensors[tensor])[place.index]
            row[:, longest - length :] = source[:, place.stop - length : place.stop]
        return gathered
