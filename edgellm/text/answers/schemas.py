"""What the JSON schemas of arguments say, as far as formats other than JSON have to know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]
DEFINITIONS = ("$defs", "definitions")
SILENT = frozenset(  # keys that say nothing of values
    [
        "title", "description", "default", "examples", "deprecated", "$comment", "$schema", "$id", "nullable",
        *DEFINITIONS,
    ]
)  # fmt: skip
MOST_REFERENCES = 32  # behind one another
TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def said(schema: Schema) -> dict[str, Any]:
    """The keys that say something of values."""
    return {key: value for key, value in schema.items() if key not in SILENT}


def resolved(schema: Any, root: Schema) -> Any:
    """A schema that is no reference, if it was one to a definition of `root`."""
    for _ in range(MOST_REFERENCES):
        if not isinstance(schema, Mapping) or not isinstance(schema.get("$ref"), str):
            return schema
        where, _, name = schema["$ref"].removeprefix("#/").partition("/")
        definitions = root.get(where) if where in DEFINITIONS else None
        schema = definitions.get(name) if isinstance(definitions, Mapping) else None
    return None


def kinds(schema: Any, root: Schema, *, is_alternative: bool = False) -> frozenset[str]:
    """The types that values may have; empty where the schema does not simply say so, as in alternatives of an
    alternative."""
    schema = resolved(schema, root)
    if not isinstance(schema, Mapping):
        return frozenset()
    if isinstance(kind := schema.get("type"), str | list):
        return frozenset([kind] if isinstance(kind, str) else filter(lambda one: isinstance(one, str), kind))
    if isinstance(values := schema.get("enum", [schema["const"]] if "const" in schema else None), list):
        return frozenset(map(type_of, values))
    several = None if is_alternative else schema.get("anyOf", schema.get("oneOf"))
    found = [kinds(one, root, is_alternative=True) for one in several] if isinstance(several, list) else []
    return frozenset().union(*found) if all(found) else frozenset()


def type_of(value: Any) -> str:
    """The JSON type of a value."""
    return TYPES.get(type(value), "null")
