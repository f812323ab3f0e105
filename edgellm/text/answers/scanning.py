"""Where something ends in a text that comes piece by piece: the same place however it is cut."""

from __future__ import annotations

import re
from collections.abc import Sequence


def beginning_at_end(text: str, markers: Sequence[str]) -> int:
    """Where the longest end of the text begins that may be the beginning of a marker; the text's length if none may."""
    longest = max(map(len, markers), default=1) - 1
    for at in range(max(0, len(text) - longest), len(text)):
        if any(marker.startswith(text[at:]) for marker in markers):
            return at
    return len(text)


class Ending:
    """Finds `end` outside of strings; without one, where the brackets that were opened are closed. `quotes`: what
    strings stand between, those of one character with backslashes. `passed`: texts that are no brackets. `at`: where
    reading begins.

    A text is only read once: `find` gets all of it, which grows.
    """

    def __init__(self, end: str | None, quotes: Sequence[str] = (), passed: Sequence[str] = (), at: int = 0) -> None:
        brackets = () if end is not None else (*"[{(", *")}]")
        self._end, self._quotes = end, quotes
        self._outside = _Tokens((*passed, *(() if end is None else (end,)), *quotes, *brackets))
        self._inside = {quote: _Tokens((quote,), escapes=len(quote) == 1) for quote in quotes}
        self._quote = ""  # of the string that the text is in
        self._at, self._depth = at, 0

    def find(self, text: str) -> tuple[int, int] | None:
        """Where the end begins and ends, None where it has not come."""
        while True:
            tokens = self._inside[self._quote] if self._quote else self._outside
            found, self._at = tokens.next(text, self._at)
            if found is None:
                return None
            if self._quote:
                self._quote = "" if found[0] == self._quote else self._quote
            elif found[0] in self._quotes:
                self._quote = found[0]
            elif self._end is not None:
                return found.span()
            elif self._closes(found[0]):
                return found.end(), found.end()

    def _closes(self, token: str) -> bool:
        self._depth += (token in "[{(") - (token in ")}]")
        return token in ")}]" and self._depth <= 0


class _Tokens:
    """The tokens that matter; of two that begin in one place the earlier in the list. `escapes`: a backslash and what
    follows are one, too."""

    def __init__(self, tokens: Sequence[str], *, escapes: bool = False) -> None:
        self._tokens = (*tokens, "\\ ") if escapes else tuple(tokens)
        self._longest = max(map(len, self._tokens))
        self._pattern = re.compile("|".join(map(re.escape, tokens)) + (r"|\\." if escapes else ""), re.DOTALL)

    def next(self, text: str, at: int) -> tuple[re.Match[str] | None, int]:
        """The next token, and where to go on; what may be the beginning of a longer one waits."""
        found = self._pattern.search(text, at)
        if found is not None and found.start() + self._longest <= len(text):
            return found, found.end()
        stop = beginning_at_end(text, self._tokens)
        if found is None:
            return None, max(at, stop)
        whole = text[stop:] == found[0] and not any(len(t) > len(found[0]) for t in self._begun(found[0]))
        if stop > found.start() or (stop == found.start() and whole):
            return found, found.end()
        return None, max(at, stop)

    def _begun(self, text: str) -> list[str]:
        return [token for token in self._tokens if token.startswith(text)]
