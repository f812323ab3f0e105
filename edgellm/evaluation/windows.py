"""Long texts in windows that overlap, and what of the text each token stands for. No model is needed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgellm.types import IntArray


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
