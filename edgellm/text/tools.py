"""Python functions as tools: what a chat template is told of one, read from its docstring and type hints."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, Union

from edgellm.errors import InputError

Schema = dict[str, Any]
Tool = Mapping[str, Any] | Callable[..., Any]
SCALARS: Mapping[Any, str] = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
CONTAINERS: Mapping[Any, str] = {list: "array", tuple: "array", dict: "object"}
SECTION = re.compile(r"(Args|Returns|Raises):")
ENTRY = re.compile(r"([ \t]*)(\w+)(?:[ \t]*\([^()\n]*\))?:\s*(.*)")  # a name, its type in brackets, what it is
CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)
HINTS = "int, float, str, bool, enums, Literal, and list, tuple, dict and unions of these"


def tool_schemas(tools: Sequence[Any]) -> list[Any]:
    """The tools as templates take them: objects as they are, of functions the schema that Hugging Face's
    `get_json_schema` makes. Raises InputError."""
    if isinstance(tools, Mapping | str | bytes) or not isinstance(tools, Sequence):
        raise InputError(f"tools must be a list of functions and JSON schemas, found {type(tools).__name__}")
    return [_schema(tool, i) for i, tool in enumerate(tools)]


def _schema(tool: Any, index: int) -> Any:
    if isinstance(tool, Mapping):
        return tool
    if inspect.isfunction(tool) or inspect.ismethod(tool):
        return function_schema(tool)
    raise InputError(
        f"tools[{index}] is a {type(tool).__name__}, expected a function with type hints and a docstring, or a JSON "
        'schema such as {"type": "function", "function": {"name": ..., "parameters": ...}}'
    )


def function_schema(function: Callable[..., Any]) -> Schema:
    """{"type": "function", "function": {name, description, parameters, return}} of a function whose docstring has an
    "Args:" section, in the style of Google's. Raises InputError."""
    name = function.__name__
    doc = inspect.getdoc(function)
    if not doc:
        raise InputError(f"the tool {name} has no docstring, which a template would show to the model")
    description, arguments, returned = _docstring(doc.strip())
    parameters = _parameters(function)
    result = parameters["properties"].pop("return", None)
    for argument, schema in parameters["properties"].items():
        if argument not in arguments:
            raise InputError(f'the docstring of the tool {name} does not describe {argument!r} under "Args:"')
        schema |= _described(name, argument, arguments[argument])
    made = {"name": name, "description": description, "parameters": parameters}
    if result is not None:
        made["return"] = result if returned is None else {**result, "description": returned}
    return {"type": "function", "function": made}


def _described(name: str, argument: str, text: str) -> Schema:
    """The description of an argument, and the values that it names: `(choices: ["tea", "coffee"])`."""
    choices = CHOICES.search(text)
    if choices is None:
        return {"description": text}
    try:
        values = [value.strip() if isinstance(value, str) else value for value in json.loads(choices[1])]
    except (ValueError, TypeError) as error:
        raise InputError(f"the tool {name}: the choices of {argument!r} are not a JSON list ({error})") from error
    return {"enum": values, "description": text[: choices.start()].strip()}


def _docstring(doc: str) -> tuple[str, dict[str, str], str | None]:
    """What a function does, what its arguments are by name, and what it returns."""
    first = SECTION.search(doc)
    description = doc if first is None else doc[: first.start()]
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in doc.split("\n")[1:]:
        start = SECTION.match(line.strip())
        if start:
            current = sections.setdefault(start[1], [line.strip()[start.end() :].strip()])
        else:
            current.append(line)
    returned = "\n".join(sections["Returns"]).strip() if "Returns" in sections else None
    return description.strip(), _arguments(sections.get("Args", [])), returned


def _arguments(lines: Sequence[str]) -> dict[str, str]:
    """Entries `name: text` or `name (type): text`; lines that are indented deeper go on with the text."""
    found: dict[str, list[str]] = {}
    depth, current = "", ""
    for line in filter(str.strip, lines):
        entry = ENTRY.match(line)
        if entry and not (current and re.match(rf"{depth}[ \t]", line)):
            depth, current = entry[1], entry[2]
            found[current] = [entry[3]]
        elif current:
            found[current].append(line)
    return {name: " ".join(part for part in map(str.strip, texts) if part) for name, texts in found.items()}


def _parameters(function: Callable[..., Any]) -> Schema:
    hints, signature = _hints(function), inspect.signature(function)
    first = next(iter(signature.parameters.values()), None)
    implied = first is not None and first.name in ("self", "cls") and first.annotation is first.empty
    receiver = first.name if first is not None and implied else None
    properties: Schema = {}
    for name, parameter in signature.parameters.items():
        if name == receiver:
            continue
        if parameter.annotation is parameter.empty:
            raise InputError(f"the tool {function.__name__}: {name!r} has no type hint")
        properties[name] = _of_hint(hints[name], f"the tool {function.__name__}: the type hint of {name!r}")
    if "return" in hints:
        with contextlib.suppress(InputError):  # the model never writes it
            properties["return"] = _of_hint(hints["return"], "")
    required = [p.name for p in signature.parameters.values() if p.default is p.empty and p.name != receiver]
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception as error:  # hints that are texts are evaluated, and may be anything
        raise InputError(f"the tool {function.__name__}: its type hints cannot be resolved ({error})") from error


def _of_hint(hint: Any, where: str) -> Schema:
    """The JSON schema of a type. Raises InputError, which begins with `where`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        return _of_class(hint, where)
    if origin in (Union, types.UnionType):
        return _of_union(arguments, where)
    if origin is Literal:
        return _of_values(list(arguments), where)
    if origin is list and len(arguments) == 1:
        return {"type": "array", "items": _of_hint(arguments[0], where)}
    if origin is tuple and len(arguments) > 1 and ... not in arguments:
        return {"type": "array", "prefixItems": [_of_hint(argument, where) for argument in arguments]}
    if origin is dict and len(arguments) == 2:
        return {"type": "object", "additionalProperties": _of_hint(arguments[1], where)}
    raise InputError(f"{where} is {hint}, expected {HINTS}; or give the tool's JSON schema")


def _of_class(hint: Any, where: str) -> Schema:
    if hint is Any:
        return {}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _of_values([member.value for member in hint], where)
    known = {**SCALARS, **CONTAINERS, typing.List: "array", typing.Tuple: "array", typing.Dict: "object"}  # noqa: UP006
    name = next((name for kind, name in known.items() if kind is hint), None)  # `hint` may be a list
    if name is None:
        raise InputError(f"{where} is {hint!r}, expected {HINTS}; or give the tool's JSON schema")
    return {"type": name}


def _of_union(arguments: Sequence[Any], where: str) -> Schema:
    """A list of types where they are simple, else one of several schemas; None makes it nullable."""
    parts = [_of_hint(argument, where) for argument in arguments if argument is not type(None)]
    nullable = {"nullable": True} if type(None) in arguments else {}
    if len(parts) == 1:
        return parts[0] | nullable
    if any(part.keys() != {"type"} or not isinstance(part["type"], str) for part in parts):
        return {"anyOf": parts, **nullable}
    names = sorted({part["type"] for part in parts})
    return {"type": names[0] if len(names) == 1 else names, **nullable}


def _of_values(values: list[Any], where: str) -> Schema:
    if not values or any(type(value) not in SCALARS for value in values):
        raise InputError(f"{where} names {values}, expected texts, numbers, True, False or None")
    names = list(dict.fromkeys(SCALARS[type(value)] for value in values))
    return {"type": names[0] if len(names) == 1 else names, "enum": values}
