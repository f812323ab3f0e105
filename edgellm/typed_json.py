"""JSON data as frozen dataclasses: every key and every type checked."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar

from edgellm.errors import PackageCorruptError

T = TypeVar("T")


def parse(cls: type[T], data: Any, where: str) -> T:
    """Build the dataclass `cls` from JSON data, checking every key and type; `where` names the place in messages."""
    if not isinstance(data, Mapping):
        raise PackageCorruptError(f"{where}: expected an object, found {data!r}; export the package again")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    missing = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in data]
    unknown = [n for n in data if n not in known]
    if missing or unknown:
        problems = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(unknown)}"] * bool(unknown)
        raise PackageCorruptError(f"{where}: {'; '.join(problems)}; export the package again")
    return cls(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in data.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` converted to the annotated type `hint`, or PackageCorruptError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return parse(hint, value, where)  # type: ignore[arg-type]
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
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise PackageCorruptError(
        f"{where} is {value!r}, expected {getattr(hint, '__name__', hint)}; export the package again"
    )
