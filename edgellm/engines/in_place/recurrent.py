"""What a cache has of layers that keep no keys and values, and where a row of it can go back to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgellm.package.manifest import CacheTensor
from edgellm.types import Array

Buffers = Callable[[], Sequence[Array]]


@dataclass
class Held:
    """What is there of a row: in its slots from a number of tokens on, and, by a number of tokens, copies of what is to
    be read behind so many: [heads, slots, size] of each tensor."""

    first: int = 0
    remembered: dict[int, list[Array]] = field(default_factory=dict)

    def copy(self) -> Held:
        return Held(self.first, dict(self.remembered))


class Recurrent(ABC):
    """Of a cache. `tensors`: the numbers of those of its tensors that these are; without any, nothing is done.
    `remembers`: what is read behind some tokens is kept, to go back to it. `before`: tokens that a token reads in the
    slots besides its own. `most_slots`: of a tensor. Where `buffers` are handed over, they give those of all of the
    cache's tensors in main memory, [rows, heads, slots, size] each."""

    before = 0
    most_slots = 0

    def __init__(self, tensors: Sequence[int], *, remembers: bool) -> None:
        self.tensors = tensors
        self.rows: list[Held] = []
        self._remembers = remembers

    def __bool__(self) -> bool:
        return bool(self.tensors)

    @property
    def nbytes(self) -> int:
        """Of what is remembered."""
        kept = {id(each): each.nbytes for row in self.rows for part in row.remembered.values() for each in part}
        return sum(kept.values())

    def begin(self, rows: int) -> None:
        """Start over with so many empty rows."""
        self.rows = [Held() for _ in range(rows)]

    def insert(self) -> None:
        """An empty row behind the others."""
        self.rows = [*self.rows, Held()]

    def reorder(self, parents: Sequence[int]) -> None:
        """New row i continues old row parents[i], in the buffers, too."""
        self.rows = [self.rows[parent].copy() for parent in parents]

    def restorable(self, row: int, length: int, tokens: int) -> int:
        """To how many tokens, at most `tokens`, a row of `length` can go back."""
        if not self or tokens == length or self._is_there(row, tokens):
            return tokens
        return max((each for each in self.rows[row].remembered if each <= tokens), default=0)

    def restore(self, row: int, tokens: int, buffers: Buffers) -> None:
        """Go back to where a row had so many tokens, which can be."""
        held = self.rows[row]
        if not tokens:
            self.rows[row] = Held()
        elif not self._is_there(row, tokens):
            self.write(row, tokens, held.remembered[tokens], buffers)
        for each in [each for each in held.remembered if each > tokens]:
            del held.remembered[each]

    def remember(self, row: int, tokens: int, buffers: Buffers) -> None:
        """Keep what is read behind so many tokens of a row, to go back to it."""
        if self._remembers and tokens and self._is_there(row, tokens):
            self.rows[row].remembered[tokens] = self._read(row, tokens, buffers)

    def recall(self, row: int, other: Held) -> None:
        """Remember what was remembered of the row that was taken over."""
        if self._remembers:
            self.rows[row].remembered |= other.remembered

    def behind(self, row: int, tokens: int, buffers: Buffers) -> list[Array]:
        """What is read behind so many tokens, [heads, slots, size] of each tensor, or fewer slots where there are not
        so many tokens; to be read."""
        found = self.rows[row].remembered.get(tokens)
        if found is not None:
            return found
        assert not self or self._is_there(row, tokens)
        return self._read(row, tokens, buffers) if self else []

    def write(self, row: int, tokens: int, parts: Sequence[Array], buffers: Buffers) -> None:
        """The same put back; of tokens before these nothing is there then."""
        if not self:
            return
        every = buffers()
        for i, part in zip(self.tensors, parts, strict=True):
            self._put(every[i][row], tokens, part)
        self.starts_behind(row, tokens)

    @abstractmethod
    def slots(self, tensor: CacheTensor, capacity: int) -> int:
        """How many a row of one of these tensors has in a cache for so many tokens."""

    @abstractmethod
    def slots_behind(self, tokens: int, slots: int) -> Array | slice:
        """Which of so many slots are read behind so many tokens."""

    @abstractmethod
    def part_slots(self, tensor: CacheTensor, tokens: int) -> int:
        """How many slots `behind` gives of it."""

    @abstractmethod
    def went_round(self, row: int, length: int, slots: int) -> bool:
        """Whether a row of so many tokens has written over some in its slots."""

    @abstractmethod
    def has_read(self, row: int, length: int, count: int, buffers: Buffers) -> None:
        """The last `count` of a row's tokens, `length` by now, were written over what was in their slots."""

    @abstractmethod
    def starts_behind(self, row: int, tokens: int) -> None:
        """Nothing is there but what is read behind so many tokens."""

    @abstractmethod
    def _is_there(self, row: int, tokens: int) -> bool:
        """Whether what is read behind so many tokens is in its slots."""

    def _read(self, row: int, tokens: int, buffers: Buffers) -> list[Array]:
        """Copies."""
        every = buffers()
        return [every[i][row][:, self.slots_behind(tokens, every[i].shape[2])].copy() for i in self.tensors]

    def _put(self, row: Array, tokens: int, part: Array) -> None:
        row[:, self.slots_behind(tokens, row.shape[1])] = part
