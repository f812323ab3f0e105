"""Values and calls as models write them outside of JSON: in Python's way, and in Gemma's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

MAX_DEPTH = 64
SPACE = re.compile(r"\s*")
NAME = re.compile(r"[\w.-]+")
KEY = re.compile(r"[^\s:=,{}\[\]()'\"]+")
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])")
ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|\n|.)", re.DOTALL)
# A quote that nothing follows which may follow a string is a part of it: LFM2.5's template escapes none.
STRINGS = {
    quote: re.compile(rf"((?:[^{quote}\\]|\\.|{quote}(?!\s*(?:[,)\]}}:]|\Z)))*){quote}", re.DOTALL) for quote in "\"'"
}
ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}
WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None, "none": None}


class Literals:
    """Reads a text from its beginning. `quotes`: what strings stand between, " and ' with backslashes in them, and
    longer ones without. Every method raises ValueError for anything else than what it is to read.

    Python's own parser is not asked: it takes the process with it where a text is nested too deep.
    """

    def __init__(self, text: str, quotes: Sequence[str]) -> None:
        self._text, self._quotes = text, quotes
        self._at = self._depth = 0

    def python_call(self) -> tuple[str, dict[str, Any]]:
        """`name(key=value, ...)`, also `print(name(...))`, and `name.call(...)` as Llama 3 writes it."""
        name = self._match(NAME)
        self.expect("(")
        if name == "print":
            self._enter()
            inner = self.python_call()
            self.expect(")")
            return inner
        arguments = self._items("=", ")")
        return name.removesuffix(".call"), arguments

    def gemma_call(self) -> tuple[str, dict[str, Any]]:
        """`call:name{key:value, ...}`."""
        self.expect("call:")
        name = self._match(NAME)
        self.expect("{")
        return name, self._items(":", "}")

    def value(self) -> Any:
        if self._take("{"):
            return self._items(":", "}")
        if self._take("["):
            return self._list("]")
        if self._take("("):
            return self._list(")")
        if (quote := next(filter(self._take, self._quotes), None)) is not None:
            return self._string(quote)
        if NUMBER.match(self._text, self._at):
            return self._number()
        word = self._match(NAME)
        if word not in WORDS:
            raise ValueError(f"no value: {word}")
        return WORDS[word]

    def expect(self, text: str) -> None:
        if not self._take(text):
            raise ValueError(f"expected {text!r} at {self._at}")

    def take(self, text: str) -> bool:
        return self._take(text)

    def at_end(self) -> bool:
        self._skip()
        return self._at == len(self._text)

    def _items(self, between: str, end: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._enter()
        while not self._take(end):
            key = self._key()
            self.expect(between)
            found[key] = self.value()
            if not self._take(","):
                self.expect(end)
                break
        self._depth -= 1
        return found

    def _list(self, end: str) -> list[Any]:
        found = []
        self._enter()
        while not self._take(end):
            found.append(self.value())
            if not self._take(","):
                self.expect(end)
                break
        self._depth -= 1
        return found

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")

    def _key(self) -> str:
        quote = next(filter(self._take, self._quotes), None)
        return self._match(KEY) if quote is None else self._string(quote)

    def _string(self, quote: str) -> str:
        if len(quote) > 1:
            end = self._text.index(quote, self._at)  # ValueError where there is none
            text, self._at = self._text[self._at : end], end + len(quote)
            return text
        found = STRINGS[quote].match(self._text, self._at)
        if found is None:
            raise ValueError("a string does not end")
        self._at = found.end()
        return ESCAPE.sub(_unescaped, found[1])

    def _number(self) -> int | float:
        text = self._match(NUMBER)
        number = int(text) if text.lstrip("+-").isdecimal() else float(text)
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"too large a number: {text}")
        return number

    def _match(self, pattern: re.Pattern[str]) -> str:
        self._skip()
        found = pattern.match(self._text, self._at)
        if not found:
            raise ValueError(f"unexpected text at {self._at}")
        self._at = found.end()
        return found[0]

    def _take(self, text: str) -> bool:
        self._skip()
        found = self._text.startswith(text, self._at)
        self._at += len(text) * found
        return found

    def _skip(self) -> None:
        found = SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    if code[0] in "ux" and len(code) > 1:
        return chr(int(code[1:], 16))
    return ESCAPED.get(code, code if code in "\\'\"/" else found[0])


def json_text(value: Any) -> str:
    """The JSON of a value. Raises ValueError for what JSON cannot write, such as numbers that are too large, or UTF-8:
    half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text.encode()
    return text
