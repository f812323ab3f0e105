"""A record of the data, and which of its columns are what an evaluation asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.errors import InputError, OptionError, nearest
from edgellm.text.tokenizer import check_text

TEXT = "text"
TARGET = "target"  # of files with the expected text of each line


@dataclass(frozen=True)
class Record:
    """One example of the data: values by column, and its `place`, file and line, for messages."""

    values: Mapping[str, Any]
    place: str


Data = Iterable[Record]  # can be iterated again, and makes its records one at a time


@dataclass(frozen=True)
class Columns:
    """Where a record has what an evaluation asks for: `names` are columns by role, several for a role whose values are
    taken together."""

    names: Mapping[str, tuple[str, ...]]

    @classmethod
    def create(cls, given: Mapping[str, str | Sequence[str]] | None = None) -> Columns:
        """The `given` columns by role, and for all other roles those that are named as the role. Raises OptionError."""
        names = dict(ROLES)
        for role, columns in (given or {}).items():
            if role not in ROLES:
                raise OptionError(f"no evaluation asks for a column {role!r}; {nearest(role, ROLES)}")
            names[role] = (columns,) if isinstance(columns, str) else tuple(columns)
        return cls(names)

    def has(self, record: Record, role: str) -> bool:
        return all(_found(record.values, name) is not MISSING for name in self._columns(record, role))

    def value(self, record: Record, role: str) -> Any:
        """What the record has for a role; a list of the values of several columns. Raises InputError."""
        names = self._columns(record, role)
        values = [_found(record.values, name) for name in names]
        for name, value in zip(names, values, strict=True):
            if value is MISSING:
                raise InputError(
                    f"{record.place}: no column {name!r}, found {', '.join(map(str, record.values)) or 'none'}; say "
                    f"which one is the {role} with --column {role}=NAME"
                )
        return values[0] if len(values) == 1 else values

    def text(self, record: Record, role: str, *, empty: bool = False) -> str:
        """The record's text for a role. Raises InputError where it is not text, or where it is empty without being
        allowed to be (`empty`)."""
        value = self.value(record, role)
        if not isinstance(value, str):
            raise InputError(f"{record.place}: the {role} is a {type(value).__name__}, expected text")
        if not empty and not value.strip():
            raise InputError(f"{record.place}: the {role} is empty")
        check_text_at(value, record.place)
        return value

    def texts(self, record: Record, role: str) -> list[str]:
        """The record's texts for a role, at least one: the column holds a text or a list of them. Raises InputError."""
        value = self.value(record, role)
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{record.place}: the {role} is no text and no list of texts")
        for text in texts:
            check_text_at(text, record.place)
        return texts

    def _columns(self, record: Record, role: str) -> tuple[str, ...]:
        names = self.names[role]
        instead = INSTEAD.get(role)
        if instead is None or names != ROLES[role] or _found(record.values, names[0]) is not MISSING:
            return names
        return instead if _found(record.values, instead[0]) is not MISSING else names


ROLES: Mapping[str, tuple[str, ...]] = {
    role: (role,)
    for role in ("text", "text_pair", "source", "target", "label", "tokens", "tags", "question", "context", "answers")
}
INSTEAD: Mapping[str, tuple[str, ...]] = {"source": ("text",)}  # where there is no column of the role's own name
MISSING = object()


def check_text_at(text: object, place: str) -> None:
    """Raises InputError, with the place, unless this is a text that can be written as UTF-8."""
    try:
        check_text(text)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def _found(values: Mapping[str, Any], name: str) -> Any:
    """The value of a column; "translation.de" is also the column de of an object in the column translation."""
    if name in values:
        return values[name]
    first, dot, rest = name.partition(".")
    inner = values.get(first)
    return _found(inner, rest) if dot and isinstance(inner, Mapping) else MISSING
