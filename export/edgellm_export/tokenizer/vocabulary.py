"""A vocabulary as GGUF and SentencePiece files hold it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from edgellm.errors import CheckpointError

LONGEST_TOKEN = 1024  # characters; the ways to cut a token in two are tried one by one
LARGEST_ID = 1 << 22  # four times as many tokens as the largest vocabularies have
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # as SentencePiece writes one


class TokenKind(IntEnum):
    """What a token is; the numbers are those of GGUF and SentencePiece alike."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, and what turns text into them.

    Either `merges` (pairs in order of priority; `pre` names the pre-tokenizer) or `scores` (one per token, higher
    merges first) is set. `add_space` puts a space before text; `strip_right` has special tokens swallow the white space
    after them, except for those listed in `keep_right`.
    """

    origin: str
    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[tuple[str, str]] | None = None
    pre: str = "default"
    scores: Sequence[float] | None = None
    bos: int | None = None
    eos: int | None = None
    unk: int | None = None
    pad: int | None = None
    add_bos: bool = False
    add_eos: bool = False
    add_space: bool = False
    strip_right: bool = False
    keep_right: tuple[str, ...] = ()

    def ids(self) -> dict[str, int]:
        """Token to id. Raises CheckpointError when a token occurs twice."""
        ids = {token: index for index, token in enumerate(self.tokens)}
        if len(ids) != len(self.tokens):
            first = next(token for index, token in enumerate(self.tokens) if ids[token] != index)
            raise CheckpointError(
                f"{self.origin}: the token {first!r} occurs twice in the vocabulary; use another file"
            )
        return ids

    def token(self, index: int | None) -> str | None:
        return None if index is None else self.tokens[index]

    def special(self) -> list[int]:
        """Ids of tokens that are found in text before anything else, with kinds other than NORMAL."""
        kinds = (TokenKind.CONTROL, TokenKind.UNKNOWN, TokenKind.USER_DEFINED)
        return [index for index, kind in enumerate(self.kinds) if kind in kinds]


def check_ids(origin: str, ids: Iterable[object]) -> None:
    """Raises CheckpointError for an id beyond any vocabulary: the library lists all that are missing below it."""
    largest = max((each for each in ids if isinstance(each, int)), default=0)
    if largest > LARGEST_ID:
        raise CheckpointError(
            f"{origin} numbers a token {largest}, expected at most {LARGEST_ID}; download it again, or use another file"
        )


def check_lengths(origin: str, tokens: Iterable[str]) -> None:
    """Raises CheckpointError for a token that takes too long to be made of others."""
    longest = max(map(len, tokens), default=0)
    if longest > LONGEST_TOKEN:
        raise CheckpointError(
            f"{origin} has a token of {longest} characters, expected at most {LONGEST_TOKEN}; use another file"
        )
