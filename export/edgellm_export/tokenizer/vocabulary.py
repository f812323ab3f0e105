"""A vocabulary as GGUF and SentencePiece files hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from edgellm.errors import CheckpointError

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


def special_token(config: Mapping[str, Any], name: str, usual: str) -> str:
    """The text of the special token `name` (as in cls_token): what tokenizer_config.json says, or the usual one."""
    given = config.get(f"{name}_token")
    content = given.get("content") if isinstance(given, Mapping) else given
    return content if isinstance(content, str) else usual
