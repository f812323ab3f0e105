"""Tokens as words, and when these are said, as transformers' Whisper tokenizer puts them together."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edgellm.speech.results import Word

Decode = Callable[[Sequence[int]], str]
UNSPACED = ("zh", "ja", "th", "lo", "my", "yue")  # languages that are written without spaces between words
OPENING, CLOSING = "\"'“¡¿([{-", "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001  of all scripts
HALF = "\ufffd"  # what a part of a character is decoded as


@dataclass(frozen=True)
class _Part:
    """`first`, `last`: the places of its tokens."""

    text: str
    first: int
    last: int

    def __add__(self, other: _Part) -> _Part:
        return _Part(self.text + other.text, self.first, other.last)


def words_of(
    tokens: Sequence[int], spans: Sequence[tuple[float, float]], decode: Decode, *, spaced: bool
) -> list[Word]:
    """The words of text tokens. spans: when each is said, in seconds. `spaced`: there are spaces between words."""
    parts = _characters(tokens, decode)
    if spaced:
        parts = _by_spaces(parts)
    return [Word(part.text, spans[part.first][0], spans[part.last][1]) for part in _with_closing(_with_opening(parts))]


def _characters(tokens: Sequence[int], decode: Decode) -> list[_Part]:
    """The shortest runs of tokens that are whole characters. What is broken in the text itself counts as whole."""
    text, parts, first, done = decode(tokens), list[_Part](), 0, 0
    for last in range(len(tokens)):
        part = decode(tokens[first : last + 1])
        half = part.find(HALF)
        if half < 0 or text[done + half : done + half + 1] in ("", HALF):
            parts.append(_Part(part, first, last))
            first, done = last + 1, done + len(part)
    return parts


def _by_spaces(parts: Iterable[_Part]) -> list[_Part]:
    """A word begins with a space, and a mark of punctuation is one by itself."""
    words: list[_Part] = []
    for part in parts:
        if not words or part.text.startswith(" ") or part.text.strip() in string.punctuation:
            words.append(part)
        else:
            words[-1] += part
    return words


def _with_opening(words: Sequence[_Part]) -> list[_Part]:
    """Marks that open something belong to the word behind them."""
    found: list[_Part] = []
    for word in reversed(words):
        if found and word.text.startswith(" ") and word.text.strip() in OPENING:
            found[-1] = word + found[-1]
        else:
            found.append(word)
    return found[::-1]


def _with_closing(words: Iterable[_Part]) -> list[_Part]:
    """Others belong to the word before them."""
    found: list[_Part] = []
    for word in words:
        if found and not found[-1].text.endswith(" ") and word.text in CLOSING:
            found[-1] += word
        else:
            found.append(word)
    return found
