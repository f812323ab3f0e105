"""A model's vocabulary as llguidance sees it: the bytes that each token writes, and an end of its own."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from edgellm.errors import EdgellmError, MissingDependencyError
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import IntArray


def llguidance() -> Any:
    """The library, imported when a constraint needs it. Raises MissingDependencyError."""
    try:
        return import_module("llguidance")
    except ImportError as error:
        raise MissingDependencyError(
            f"json_schema, regex, grammar and choices need llguidance, which is not installed ({error}); "
            "run `pip install edgellm[grammar]`"
        ) from error


class Vocabulary:
    """Ids below `size` are the model's, the others are never chosen. The first of these stands for all of a plan's end
    tokens, which differ from call to call. Behind it come tokens that write something else at the beginning of a text,
    once more, as they are there: `first_ids` are theirs, `first` those of the model. The last ones are bytes that no
    token writes by itself: with them there is an answer for any text that llguidance asks for.
    """

    is_tokenizer_wrapper = True  # what llguidance.LLTokenizer looks for, as it does for the next four
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        known = tokenizer.token_bytes()
        self._tokenizer = tokenizer
        self.size, self.eos_token_id = size, size
        first = {i: text for i, text in known.first.items() if i < size}
        self.first: IntArray = np.array(list(first), np.int64)
        self.first_ids: IntArray = np.arange(size + 1, size + 1 + len(first))
        special = {i: name for i, name in known.special.items() if i < size}
        self.tokens = [special.get(i) or known.inside.get(i, b"") for i in range(size)]
        self.tokens += [b"end", *first.values()]
        self._special = frozenset(special)
        self.special_token_ids = [*special, self.eos_token_id]
        self._ids = {text: i for i, text in reversed([*known.inside.items()]) if text and i < size}
        missing = [byte for byte in map(int.to_bytes, range(256)) if byte not in self._ids]
        self._ids |= {byte: i for i, byte in enumerate(missing, len(self.tokens))}
        self.tokens += missing
        self._longest = max(map(len, self._ids))
        self._as_first: dict[int, int] = dict(zip(self.first.tolist(), self.first_ids.tolist(), strict=True))

    def id_at_start(self, token: int) -> int:
        """The id of what a token writes at the beginning of a text."""
        return self._as_first.get(token, token)

    def __call__(self, text: str) -> list[int]:
        """Tokens that write exactly this text: those of the tokenizer if they do. llguidance asks for what has to come
        next, also in the middle of a word."""
        wanted = text.encode()
        for given in (text, text[1:])[: 1 + text.startswith(" ")]:  # behind a space that the tokenizer adds by itself
            ids = self._encoded(given)
            written = self._written(ids)
            if written == wanted:
                return ids
            if written == b" " + wanted:
                return [*self._longest_matches(self.tokens[ids[0]][1:]), *ids[1:]]
        return self._longest_matches(wanted)

    def _encoded(self, text: str) -> list[int]:
        try:
            tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False).tolist()
        except EdgellmError:  # a text that this tokenizer cannot read may still be written
            return []
        return tokens

    def _written(self, ids: list[int]) -> bytes | None:
        silent = any(i >= self.size or i in self._special for i in ids)
        return None if silent else b"".join(self.tokens[i] for i in ids)

    def _longest_matches(self, text: bytes) -> list[int]:
        ids, place = [], 0
        while place < len(text):
            ends = range(min(len(text), place + self._longest), place, -1)
            end = next(end for end in ends if text[place:end] in self._ids)
            ids.append(self._ids[text[place:end]])
            place = end
        return ids
