"""JSON files of a package as the objects that they must hold, and as frozen dataclasses: every key and type checked."""

from __future__ import annotations

import json
import reprlib
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from edgellm.errors import corrupt

T = TypeVar("T")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no such file. Raises PackageCorruptError for anything else."""
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise corrupt(f"{path} is not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise corrupt(f"{path} holds a JSON {type(data).__name__}, expected an object")
    return data


class Mistyped(ValueError):
    """The data is not what the dataclass says; the text says where."""


def build(cls: type[T], data: Any, where: str) -> T:
    """Build the dataclass `cls` from JSON data, checking every key and type; `where` names the place in messages.
    Raises Mistyped."""
    if not isinstance(data, Mapping):
        raise Mistyped(f"{where}: expected an object, found {_short(data)}")
    hints = _hints(cls)  # type: ignore[arg-type]  # a class is hashable
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    missing = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in data]
    unknown = [n for n in data if n not in known]
    if missing or unknown:
        problems = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(unknown)}"] * bool(unknown)
        raise Mistyped(f"{where}: {'; '.join(problems)}")
    return cls(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in data.items()})


@cache
def _hints(cls: Hashable) -> Mapping[str, Any]:
    return typing.get_type_hints(cls)


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` converted to the annotated type `hint`. Raises Mistyped."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return build(hint, value, where)  # type: ignore[arg-type]
    if origin is Literal and value in args:
        return value
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _value(next(a for a in args if a is not type(None)), value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(args[0], item, where) for item in value)
    if (origin is Mapping and isinstance(value, dict)) or (
        isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, dict)
    ):
        return {key: _value(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(hint, type) and (type(value) is hint or (hint is float and type(value) is int)):
        return value
    raise Mistyped(f"{where} is {_short(value)}, expected {getattr(hint, '__name__', hint)}")


def _short(value: Any) -> str:
    """The value as Python writes it, without the rest of what is long."""
    return reprlib.repr(value)
