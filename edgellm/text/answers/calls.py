"""A call, and the tools that there are to call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """`arguments`: the JSON text of an object, as the model wrote it where it wrote JSON."""

    name: str
    arguments: str


Types = Mapping[str, Any]  # what a tool's schema says of each parameter's "type"
KnownTools = Mapping[str, Types]
# Of the text between two markers. Raises ValueError where it is no call, or one of a tool that is not there.
Reader = Callable[[str, KnownTools], list[Call]]


def known_tools(schemas: Sequence[Any]) -> KnownTools:
    """The tools' names and their parameters' types, of schemas with or without {"type": "function"}."""
    found: dict[str, Types] = {}
    for schema in schemas:
        function = _mapping(schema.get("function")) or schema
        properties = _mapping(_mapping(function.get("parameters")).get("properties"))
        if isinstance(function.get("name"), str):
            found[function["name"]] = {name: _mapping(value).get("type") for name, value in properties.items()}
    return found


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def checked(name: object, arguments: str, tools: KnownTools) -> Call:
    if not isinstance(name, str) or name not in tools:
        raise ValueError(f"no such tool: {name!r}")
    return Call(name, arguments)


def some(calls: list[Call]) -> list[Call]:
    if not calls:
        raise ValueError("no call")
    return calls
