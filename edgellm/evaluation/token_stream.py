"""The tokens of a text, however long, without holding all of them.

A long text is tokenized in blocks that overlap. One block takes over from the one before at a place inside the overlap
from which on both have the same tokens; where there is none, the block grows instead. So the tokens are those of the
whole text, as far as a token does not depend on characters thousands of places away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgellm.evaluation.windows import Units, units_of
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import IntArray

BLOCK = 1 << 18  # characters
OVERLAP = 1 << 12  # characters
AGREEING = 8  # tokens


@dataclass(frozen=True)
class Tokens:
    """Tokens with their `offsets` [tokens, 2], in characters of the text. Special tokens, which the tokenizer adds,
    have the place where their block begins."""

    ids: IntArray
    offsets: IntArray
    units: Units

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, begin: int, end: int | None = None) -> Tokens:
        units = Units(self.units.bytes[begin:end], self.units.words[begin:end])
        return Tokens(self.ids[begin:end], self.offsets[begin:end], units)

    def then(self, other: Tokens) -> Tokens:
        units = Units(
            np.concatenate([self.units.bytes, other.units.bytes]), np.concatenate([self.units.words, other.units.words])
        )
        offsets = np.concatenate([self.offsets, other.offsets])
        return Tokens(np.concatenate([self.ids, other.ids]), offsets, units)


class TokenStream:
    """Holds tokens by their place in the text, from the last one forgotten to as far as was asked."""

    def __init__(self, pieces: Iterator[Tokens]) -> None:
        self._pieces = pieces
        self._held: Tokens | None = None
        self._first = 0  # the place of the first token held

    def reach(self, count: int) -> int:
        """Hold the first `count` tokens, or all if there are fewer; returns how many that are."""
        while self._end < count:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._held = piece if self._held is None else self._held.then(piece)
        return min(count, self._end)

    def take(self, begin: int, end: int) -> Tokens:
        assert self._held is not None
        return self._held.part(begin - self._first, end - self._first)

    def forget(self, before: int) -> None:
        assert self._held is not None
        self._held = self._held.part(before - self._first)
        self._first = before

    @property
    def _end(self) -> int:
        return self._first + (0 if self._held is None else len(self._held))


def tokens_of(tokenizer: Tokenizer, text: str, *, block: int = BLOCK, overlap: int = OVERLAP) -> Iterator[Tokens]:
    """The tokens of `text`, special ones included, piece by piece."""
    begin, stop, first = 0, min(block, len(text)), 0
    held = _block(tokenizer, text, begin, stop)
    while stop < len(text):
        after = stop - overlap, min(stop - overlap + block, len(text))
        following = _block(tokenizer, text, *after)
        meeting = _meeting(held, following, after[0] + overlap // 4)
        if meeting is None:
            stop = min(2 * stop - begin, len(text))
            held = _from(_block(tokenizer, text, begin, stop), first)
        else:
            yield held.part(0, meeting)
            (begin, stop), first = after, int(held.offsets[meeting, 0])
            held = _from(following, first)
    yield held


def _block(tokenizer: Tokenizer, text: str, begin: int, stop: int) -> Tokens:
    """The tokens of text[begin:stop], with special ones only at the ends of the text itself."""
    part = text[begin:stop]
    encoding = tokenizer.encoding(part)
    tokens = Tokens(encoding.ids, encoding.offsets + begin, units_of(part, encoding.offsets))
    own = np.flatnonzero(~encoding.special)
    if not len(own):
        return tokens
    return tokens.part(int(own[0]) if begin else 0, None if stop == len(text) else int(own[-1]) + 1)


def _from(tokens: Tokens, character: int) -> Tokens:
    """The tokens without those that begin before `character`."""
    return tokens.part(int(np.searchsorted(tokens.offsets[:, 0], character)))


def _meeting(one: Tokens, other: Tokens, after: int) -> int | None:
    """The place in `one` of the first token behind the character `after` from which on `other` has the same tokens for
    a while."""
    starts = other.offsets[:, 0]
    for place in range(int(np.searchsorted(one.offsets[:, 0], after)), len(one) - AGREEING + 1):
        start = one.offsets[place, 0]
        there = int(np.searchsorted(starts, start))
        mine, theirs = one.part(place, place + AGREEING), other.part(there, there + AGREEING)
        if start > one.offsets[place - 1, 0] and np.array_equal(mine.ids, theirs.ids) and np.array_equal(
            mine.offsets, theirs.offsets
        ):  # fmt: skip
            return place
    return None
