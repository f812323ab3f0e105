"""One input of an encoder as arrays, a value per token; cut to a length, or into windows that overlap.

Cutting takes tokens out of a finished encoding, so special tokens, types and offsets stay what the tokenizer made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from edgellm.errors import InputError, OptionError
from edgellm.types import BoolArray, IntArray

Side = Literal["left", "right"]
Truncation = Literal["longest_first", "only_first", "only_second"]

NONE = -1  # the word or text of a special token


@dataclass(frozen=True)
class Encoding:
    """An input as arrays of [tokens]. `offsets` [tokens, 2] are a token's first character and the one after its last,
    in the text it is from.

    Tokens that the tokenizer adds are `special`. `texts` is 0 for the text, 1 for its pair, -1 for special tokens;
    `words` the number of the word in its text, -1 for none.
    """

    ids: IntArray
    type_ids: IntArray
    special: BoolArray
    offsets: IntArray
    words: IntArray
    texts: IntArray

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, kept: BoolArray) -> Encoding:
        """The encoding with only the tokens for which `kept` [tokens] is true."""
        return Encoding(*(getattr(self, field.name)[kept] for field in fields(self)))

    def moved(self, characters: IntArray) -> Encoding:
        """The encoding with offsets that are further on by so many `characters` [tokens]."""
        return replace(self, offsets=self.offsets + characters[:, None])

    def length_of(self, text: int) -> int:
        """How many tokens are of the text (0) or of its pair (1)."""
        return int(np.count_nonzero(self.texts == text))

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The characters from the token `first` to the token `last`."""
        return int(self.offsets[first, 0]), int(self.offsets[last, 1])

    def word_span(self, first: int, last: int) -> tuple[int, int] | None:
        """The characters from the beginning of the first token's word to the end of the last one's; None if one of the
        tokens is in no word."""
        if NONE in (self.words[first], self.words[last]):
            return None
        begin, end = (
            np.flatnonzero((self.texts == self.texts[i]) & (self.words == self.words[i])) for i in (first, last)
        )
        return int(self.offsets[begin[0], 0]), int(self.offsets[end[-1], 1])


def from_tokenizer(encoding: Any) -> Encoding:
    """The encoding that the tokenizers library made, as arrays."""
    return Encoding(
        np.array(encoding.ids, np.int64),
        np.array(encoding.type_ids, np.int64),
        np.array(encoding.special_tokens_mask, np.bool_),
        np.array(encoding.offsets, np.int64).reshape(-1, 2),
        _with_none(encoding.word_ids),
        _with_none(encoding.sequence_ids),
    )


def truncated(
    encoding: Encoding, max_length: int, truncation: Truncation = "longest_first", *, at: Side = "right"
) -> Encoding:
    """The encoding with at most `max_length` tokens, special ones included: it is cut at the end of the text (`at` the
    right), of its pair, or of the longer one first. Raises OptionError where what may be cut is too short for that."""
    if len(encoding) <= max_length:
        return encoding
    lengths = encoding.length_of(0), encoding.length_of(1)
    special = len(encoding) - sum(lengths)
    kept = _shares(lengths, max_length - special, truncation)
    if any(share < 1 for share, length in zip(kept, lengths, strict=True) if length):
        raise OptionError(
            f"the input cannot be cut to {max_length} tokens with truncation {truncation!r}: its text has {lengths[0]} "
            f"tokens, its pair {lengths[1]}, and {special} are special; raise the length or shorten the input"
        )
    first = [length - share if at == "left" else 0 for length, share in zip(lengths, kept, strict=True)]
    within = [_within(encoding, text, first[text], first[text] + kept[text]) for text in (0, 1)]
    return encoding.take(within[0] & within[1])


def windows(encoding: Encoding, text: int, max_length: int, stride: int) -> list[Encoding]:
    """The encoding with `text` (0, or 1 for the pair) cut into pieces, each with all the rest in at most `max_length`
    tokens, that repeat the last `stride` tokens of the one before. Raises InputError or OptionError."""
    if len(encoding) <= max_length:
        return [encoding]
    length = encoding.length_of(text)
    rest = len(encoding) - length
    room = max_length - rest
    if room < 1:
        raise InputError(
            f"no room for a piece of the long text: the rest of the input has {rest} tokens, special ones included, "
            f"of {max_length} at most; shorten it"
        )
    if not 0 <= stride < room:
        raise OptionError(
            f"the stride is {stride} tokens, expected 0 to {room - 1}: {room} tokens of the long text fit beside the "
            f"rest of the input in {max_length}"
        )
    starts = range(0, length - stride, room - stride)
    return [encoding.take(_within(encoding, text, start, start + room)) for start in starts]


def _shares(lengths: tuple[int, int], room: int, truncation: Truncation) -> tuple[int, int]:
    """How many tokens the text and its pair keep in `room`; below 1 where it cannot be done."""
    if truncation == "only_first":
        return room - lengths[1], lengths[1]
    if truncation == "only_second":
        return lengths[0], room - lengths[0]
    if not lengths[1]:
        return room, 0
    shorter = min(lengths)
    if shorter + max(shorter, room - shorter) > room:  # both are cut
        shares = room // 2, room - room // 2
    else:
        shares = shorter, room - shorter
    return shares if lengths[0] <= lengths[1] else (shares[1], shares[0])


def _within(encoding: Encoding, text: int, start: int, stop: int) -> BoolArray:
    """Which tokens [tokens] to keep: all but those of `text` outside of its tokens from `start` to before `stop`."""
    mine = encoding.texts == text
    place = np.cumsum(mine) - 1
    return np.asarray(~mine | ((place >= start) & (place < stop)))


def _with_none(values: Sequence[int | None]) -> IntArray:
    return np.array([NONE if value is None else value for value in values], np.int64)
