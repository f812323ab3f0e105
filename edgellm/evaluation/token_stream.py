"""The tokens of a text, however long, in windows that overlap, without holding all of them.

A long text is tokenized in blocks that overlap. One block takes over from the one before at a place inside the overlap
from which on both have the same tokens; where there is none, the block grows instead. So the tokens are those of the
whole text, as far as a token does not depend on characters thousands of places away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgellm.text.tokenizer import Tokenizer
from edgellm.types import IntArray

BLOCK = 1 << 18  # characters
OVERLAP = 1 << 12  # characters
AGREEING = 8  # tokens


@dataclass(frozen=True)
class TokenWindow:
    """The tokens from `begin` to before `end`; those from `scored` on are predicted in this window, and in no other."""

    begin: int
    end: int
    scored: int


def sliding_windows(reach: Callable[[int], int], window: int, stride: int) -> Iterator[TokenWindow]:
    """Windows as transformers has them: they begin every `stride` tokens, and each predicts what the one before did
    not. The first token of a window is never predicted; with a stride below `window` that is only the text's first
    token.

    reach: called with a number of tokens, gives that number, or how many there are, if that is less.
    """
    begin = done = 0
    while (end := reach(begin + window)) > begin:
        scored = max(done, begin + 1)
        if scored < end:
            yield TokenWindow(begin, end, scored)
        if reach(end + 1) == end:
            return
        begin, done = begin + stride, end


@dataclass(frozen=True)
class Units:
    """What each token adds to those before it, [tokens] each: bytes in UTF-8, and words."""

    bytes: IntArray
    words: IntArray


def units_of(text: str, offsets: IntArray) -> Units:
    """What of `text` each token stands for, by offsets [tokens, 2] in characters. A word, which white space ends,
    belongs to the token with its first character; white space that is in no token to the next one; a character of
    several tokens to the first of them."""
    characters = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    sizes = 1 + (characters >= 0x80).astype(np.int64) + (characters >= 0x800) + (characters >= 0x10000)
    space = np.fromiter(map(str.isspace, text), np.bool_, len(text))
    starts = ~space & np.concatenate([[True], space[:-1]])[: len(text)]
    ends = np.maximum.accumulate(offsets[:, 1]) if len(offsets) else np.zeros(0, np.int64)
    return Units(_added(sizes, ends), _added(starts.astype(np.int64), ends))


def _added(counts: IntArray, ends: IntArray) -> IntArray:
    totals = np.concatenate([[0], np.cumsum(counts)])
    return np.diff(totals[ends], prepend=0)


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
