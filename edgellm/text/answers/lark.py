"""Grammars in Lark's notation, as llguidance reads it: texts, tokens, and texts up to a marker."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

SPACES = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}  # as json.dumps writes
META = re.compile(r"[\\.+*?()|\[\]{}^$/&~#-]")
ANY = "/(?s:.*)/"


class Lark:
    """A grammar in the making. `special`: the ids of special tokens by their texts, which nothing else can write.

    Methods return an expression, or the name of a rule that they have added.
    """

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = special
        self._split = re.compile("(" + "|".join(map(re.escape, sorted(special, key=len, reverse=True))) + ")")
        self._names: dict[str, str] = {}  # by what stands behind them
        self._late: list[str] = []
        self._made: dict[Hashable, str] = {}

    def rule(self, body: str) -> str:
        return self._named("r", body)

    def terminal(self, body: str) -> str:
        """`body`: of literals and regular expressions alone."""
        return self._named("T", body)

    def lazy(self, body: str) -> str:
        """A terminal that ends as soon as it can."""
        return self._named("r", self.terminal(body), "[lazy]")

    def late(self, name: str, body: str) -> None:
        """A rule whose name is known before what it stands for, as it may speak of itself."""
        if (line := f"{name}: {body}") not in self._late:
            self._late.append(line)

    def once(self, key: Hashable, make: Callable[[], str]) -> str:
        """A rule for what `make` gives, which is asked once for each key: what is named often is not written often."""
        if key not in self._made:
            self._made[key] = self.rule(make())
        return self._made[key]

    def text(self, text: str) -> str:
        """Exactly this, its special tokens as tokens; "" for nothing."""
        parts = self._split.split(text) if self._special else [text]
        return " ".join(f"<[{self._special[p]}]>" if p in self._special else literal(p) for p in parts if p)

    def json(self, schema: Any) -> str:
        """A JSON text that a schema allows."""
        # Parentheses of descriptions are no part of the notation.
        text = json.dumps({"x-guidance": SPACES, **schema}).replace("(", "\\u0028").replace(")", "\\u0029")
        return self.rule(f"%json {text}")

    def without(self, markers: Sequence[str], patterns: Sequence[str] = (), shapes: Sequence[str] = ()) -> str:
        """Any text that holds none of the markers; regular expressions: `patterns` match none of it, `shapes` all."""
        return self.terminal(" & ".join([ANY, *excluded(markers, patterns), *(f"/{shape}/" for shape in shapes)]))

    def before(
        self, marker: str, others: Sequence[str] = (), patterns: Sequence[str] = (), shapes: Sequence[str] = ()
    ) -> str:
        """Any text up to a marker, and the marker; the text as in `without`."""
        if self._begins_with_token(marker):
            return f"{self.without([marker, *others], patterns, shapes)} {self.text(marker)}"
        others = [other for other in others if other != marker]
        ends = [f"/{shape}{escaped(marker)}/" for shape in ("(?s:.*)", *shapes)]
        return self.lazy(" & ".join([*ends, *excluded(others, patterns)]))

    def __str__(self) -> str:
        return "\n".join([*self._late, *(f"{name}{rest}" for rest, name in self._names.items())]) + "\n"

    def _begins_with_token(self, text: str) -> bool:
        return bool(self._special) and next(filter(None, self._split.split(text))) in self._special

    def _named(self, kind: str, body: str, attribute: str = "") -> str:
        """The name of what stands for this already, or of a new line."""
        return self._names.setdefault(f"{attribute}: {body}", f"{kind}{len(self._names)}")


def literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def escaped(text: str) -> str:
    """A regular expression for this text."""
    return META.sub(lambda found: "\\" + found[0], text).replace("\n", "\\n")


def either(alternatives: Sequence[str]) -> str:
    return alternatives[0] if len(alternatives) == 1 else f"({' | '.join(alternatives)})"


def excluded(markers: Sequence[str], patterns: Sequence[str] = ()) -> list[str]:
    """Of terminals: what a text does not hold, and what does not match all of it."""
    inside = [f"~/(?s:.*)({'|'.join(map(escaped, markers))})(?s:.*)/"] if markers else []
    return [*inside, *(f"~/{pattern}/" for pattern in patterns)]
