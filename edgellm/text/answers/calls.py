"""A call, and the tools that there are to call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.text.answers.schemas import kinds


@dataclass(frozen=True)
class Call:
    """`arguments`: the JSON text of an object, as the model wrote it where it wrote JSON."""

    name: str
    arguments: str


Types = Mapping[str, frozenset[str]]  # of each parameter, as `kinds` has them
KnownTools = Mapping[str, Types]
# Of the text between two markers. Raises ValueError where it is no call, or one of a tool that is not there.
Reader = Callable[[str, KnownTools], list[Call]]


def known_tools(schemas: Sequence[Any]) -> KnownTools:
    """The tools' names and their parameters' types."""
    found: dict[str, Types] = {}
    for function in map(function_of, schemas):
        parameters = _mapping(function.get("parameters"))
        if isinstance(function.get("name"), str):
            properties = _mapping(parameters.get("properties"))
            found[function["name"]] = {name: kinds(schema, parameters) for name, schema in properties.items()}
    return found


def function_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The function of a tool, with or without {"type": "function"}."""
    return _mapping(schema.get("function")) or schema


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
