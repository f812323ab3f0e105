"""How much text a call has room for: the model's context, or what a limit on memory leaves of it. A longer prompt is an
error, unless the caller asked for less text.

"truncate" leaves room for the new tokens, at most half of the context, and drops the oldest tokens behind the first
`keep` until the prompt fits beside that room. Of a chat, whole turns are dropped, the oldest first. "shift" lets a
sequence that has filled the context go on: see `edgellm.decoding.shifting`, whose window a longer prompt is cut to.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgellm.decoding import GenerationOptions
from edgellm.decoding.shifting import ContextWindow
from edgellm.errors import ContextOverflowError, MemoryBudgetError, OptionError
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.text.messages import Message
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import IntArray


@dataclass(frozen=True)
class Room:
    """How many tokens prompt and answer may have together. `max_bytes`: the memory budget that sets this limit; None:
    the model's context does."""

    tokens: int
    max_bytes: int | None = None

    def overflow(
        self, what: str, length: int, advice: str = 'shorten it, or let it be cut with overflow="truncate"'
    ) -> ContextOverflowError:
        if self.max_bytes is None:
            return ContextOverflowError(
                f"{what} has {length} tokens, the model's context is {self.tokens}: no room for a new token; {advice}"
            )
        return MemoryBudgetError(
            f"{what} has {length} tokens, and the session's max_bytes of {self.max_bytes} hold {self.tokens}: no room "
            f"for a new token; raise max_bytes, {advice}"
        )


@dataclass(frozen=True)
class MemoryBudget:
    """A limit on the memory of a cache. `max_bytes`: None for no limit but the context. `token_bytes`: what one token
    takes at most. `row_bytes`: what a row takes besides."""

    max_bytes: int | None
    token_bytes: int
    row_bytes: int = 0

    @classmethod
    def create(cls, max_bytes: Any, manifest: Manifest[DecoderFacts]) -> MemoryBudget:
        """A checked budget. While a step runs, a cache that concatenates is there twice. Raises OptionError."""
        layout = manifest.model.cache
        token_bytes = layout.bytes_per_token() * (2 if layout.growth == "concat" else 1)
        row_bytes = layout.bytes_per_row()
        least = row_bytes + 2 * token_bytes
        if max_bytes is not None and (type(max_bytes) is not int or max_bytes < least):
            raise OptionError(
                f"max_bytes is {max_bytes!r}, expected a whole number of bytes from {least}, what two tokens take"
            )
        return cls(max_bytes, token_bytes, row_bytes)

    def room(self, context_length: int, rows: int = 1) -> Room:
        """The room of each of so many rows."""
        if self.max_bytes is None:
            return Room(context_length)
        rest = self.max_bytes - rows * self.row_bytes
        if not self.token_bytes and rest >= 0:
            return Room(context_length)
        tokens = max(0, rest) // (rows * max(1, self.token_bytes))
        return Room(context_length) if tokens >= context_length else Room(tokens, self.max_bytes)


@dataclass(frozen=True)
class Fitted:
    """A prompt that fits. `dropped`: how many of its tokens were left out. `window`: the context's, where the sequence
    may shift."""

    tokens: IntArray
    dropped: int = 0
    window: ContextWindow | None = None


def fit_prompt(
    tokens: IntArray, options: GenerationOptions, room: Room, *, bos: int | None = None, keep: int | None = None
) -> Fitted:
    """A prompt of tokens, as `options.overflow` says. `keep`: how many leading tokens always stay, where the options do
    not say; None: the BOS token, if the prompt begins with it.

    Raises ContextOverflowError where it does not fit, OptionError where `overflow_keep` leaves no room.
    """
    if options.overflow == "error":
        if len(tokens) >= room.tokens:
            raise room.overflow("the prompt", len(tokens))
        return Fitted(tokens)
    if keep is None:
        keep = int(bos is not None and len(tokens) > 0 and int(tokens[0]) == bos)
    keep = _checked_keep(options, keep, room)
    if options.overflow == "truncate":
        longest = room.tokens - reserved(len(tokens), options, room)
        cut = tokens if len(tokens) <= longest else _without_oldest(tokens, keep, longest)
        return Fitted(cut, len(tokens) - len(cut))
    window = ContextWindow(room.tokens, keep)
    cut = np.array(window.shifted(tokens.tolist()), np.int64) if len(tokens) >= room.tokens else tokens
    return Fitted(cut, len(tokens) - len(cut), window)


def fit_chat(
    messages: Sequence[Message],
    encode: Callable[[Sequence[Message]], IntArray],
    options: GenerationOptions,
    room: Room,
) -> Fitted:
    """A chat under "truncate": leading system messages stay, and so does the last turn; of the turns between, each a
    message of the user and all that follows until the next, the oldest are dropped. `encode`: messages to a prompt.

    Raises ContextOverflowError where the last turn by itself does not fit.
    """
    whole = encode(messages)
    longest = room.tokens - reserved(len(whole), options, room)
    if len(whole) <= longest:
        return Fitted(whole)
    first = system_messages(messages)
    starts = [i for i, message in enumerate(messages) if i >= first and message["role"] == "user"]

    def beginning_at(turn: int) -> IntArray:
        return encode([*messages[:first], *messages[starts[turn] :]])

    later = range(1, len(starts))
    found = bisect_left(later, True, key=lambda turn: len(beginning_at(turn)) <= longest)
    if found == len(later):
        last = len(beginning_at(len(starts) - 1)) if starts else len(whole)
        raise room.overflow("the chat's last turn, with the system message,", last, "shorten these, or max_new_tokens")
    tokens = beginning_at(later[found])
    return Fitted(tokens, len(whole) - len(tokens))


def fit_source(
    tokens: IntArray, options: GenerationOptions, longest: int | None, tokenizer: Tokenizer | None
) -> Fitted:
    """A source of an encoder-decoder under "truncate": its end is dropped, but not special tokens that come last."""
    if longest is None or len(tokens) <= longest or options.overflow != "truncate":
        return Fitted(tokens)
    special = tokenizer.special_ids if tokenizer is not None else frozenset()
    text = next((end for end in range(len(tokens), 0, -1) if int(tokens[end - 1]) not in special), 0)
    behind = tokens[text:][-longest:]
    return Fitted(np.concatenate([tokens[: longest - len(behind)], behind]), len(tokens) - longest)


def reserved(length: int, options: GenerationOptions, room: Room) -> int:
    """The room that "truncate" leaves for the new tokens of a prompt of so many, at most half of all."""
    return max(1, min(options.limit(length), room.tokens // 2))


def system_messages(messages: Sequence[Message]) -> int:
    """How many messages lead with the role "system" (or "developer")."""
    leading = (i for i, message in enumerate(messages) if message["role"] not in ("system", "developer"))
    return next(leading, len(messages))


def _checked_keep(options: GenerationOptions, keep: int, room: Room) -> int:
    most = room.tokens // 2
    if options.overflow_keep is not None and options.overflow_keep > most:
        raise OptionError(
            f"overflow_keep is {options.overflow_keep}, expected at most half of the {room.tokens} tokens that there "
            "is room for"
        )
    if options.overflow_keep is None and keep > most:
        raise ContextOverflowError(
            f"the system messages have {keep} tokens, which are to stay, expected at most half of the {room.tokens} "
            "that there is room for; shorten them, or say with overflow_keep how many stay"
        )
    return keep if options.overflow_keep is None else options.overflow_keep


def _without_oldest(tokens: IntArray, keep: int, length: int) -> IntArray:
    """`length` tokens: the first `keep`, and the last ones."""
    keep = min(keep, length)
    return np.concatenate([tokens[:keep], tokens[len(tokens) - (length - keep) :]])
