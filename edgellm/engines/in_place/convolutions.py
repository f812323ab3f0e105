"""What a cache has of what its short convolutions read.

For a layer with a short convolution a cache holds [rows, 1, slots, width]: what the convolution read of the last
tokens, token i in slot i modulo their number. So a row can be trimmed by as many tokens as these are, or else to where
the cache has remembered what the convolutions would read next: at each CONV_STEP tokens, and where a prompt ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgellm.package.layouts import CONV_SLOTS, CONV_STEP
from edgellm.package.manifest import CacheLayout
from edgellm.types import Array

Buffers = Callable[[], Sequence[Array]]


@dataclass
class Held:
    """What is there of a row: of the tokens from `first` on that have not left their slots, and, by a number of tokens,
    what is to be read behind so many: [1, kernel - 1, width] of each convolution."""

    first: int = 0
    remembered: dict[int, list[Array]] = field(default_factory=dict)

    def copy(self) -> Held:
        return Held(self.first, dict(self.remembered))


class Convolutions:
    """Of a cache. `buffers` gives those of all of its tensors in main memory, [rows, heads, slots, size] each. False
    where the layout has no convolutions: nothing is done then. `remembers`: what they read is kept to go back to.
    `chunk`: tokens that a run reads at most, but for one."""

    def __init__(self, layout: CacheLayout, *, chunk: int, remembers: bool) -> None:
        self.tensors = [i for i, tensor in enumerate(layout.tensors()) if tensor.kernel]
        self.before = 0 if layout.conv is None else layout.conv.kernel - 1  # tokens that one reads besides its own
        self.most_slots = max(CONV_SLOTS, -(-(chunk + 1 + self.before) // CONV_STEP) * CONV_STEP)
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

    def went_round(self, row: int, length: int, slots: int) -> bool:
        """Whether a row of so many tokens has written over some in its slots."""
        return bool(self.rows[row].first) or length > slots

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

    def has_read(self, row: int, length: int, count: int, buffers: Buffers) -> None:
        """The last `count` of a row's tokens, `length` by now, were written over those that were in their slots."""
        held = self.rows[row]
        held.first = max(held.first, length - self.most_slots)
        for tokens in range((length - count) // CONV_STEP * CONV_STEP + CONV_STEP, length + 1, CONV_STEP):
            self.remember(row, tokens, buffers)

    def remember(self, row: int, tokens: int, buffers: Buffers) -> None:
        """Keep what is read behind so many tokens of a row, to go back to it."""
        if self._remembers and tokens and self._is_there(row, tokens):
            self.rows[row].remembered[tokens] = self._read(row, tokens, buffers)

    def recall(self, row: int, other: Held) -> None:
        """Remember what was remembered of the row that was taken over."""
        if self._remembers:
            self.rows[row].remembered |= other.remembered

    def behind(self, row: int, tokens: int, buffers: Buffers) -> list[Array]:
        """[1, kernel - 1, width] of each convolution, or less where there are not so many tokens, to be read."""
        found = self.rows[row].remembered.get(tokens)
        if found is not None:
            return found
        assert not self or self._is_there(row, tokens)
        return self._read(row, tokens, buffers)

    def write(self, row: int, tokens: int, parts: Sequence[Array], buffers: Buffers) -> None:
        """The same put back; of tokens before these nothing is there then."""
        if not self:
            return
        every = buffers()
        for i, part in zip(self.tensors, parts, strict=True):
            every[i][row][:, self.slots_behind(tokens, every[i].shape[2])] = part
        self.starts_behind(row, tokens)

    def starts_behind(self, row: int, tokens: int) -> None:
        """Nothing is there of tokens before those that are read behind so many."""
        self.rows[row].first = max(0, tokens - self.before)

    def slots_behind(self, tokens: int, slots: int) -> Array:
        """Which of so many slots are read behind so many tokens."""
        return np.arange(max(0, tokens - self.before), tokens) % slots

    def _is_there(self, row: int, tokens: int) -> bool:
        """Whether what is read behind so many tokens is in its slots."""
        first = self.rows[row].first
        return first == 0 or tokens - self.before >= first

    def _read(self, row: int, tokens: int, buffers: Buffers) -> list[Array]:
        """Copies."""
        if not self:
            return []
        every = buffers()
        return [every[i][row][:, self.slots_behind(tokens, every[i].shape[2])] for i in self.tensors]
