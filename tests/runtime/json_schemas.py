"""JSON Schemas of the kinds that JSONSchemaBench has (arXiv 2501.10868): function calls, Kubernetes objects, event
descriptions, files of configuration, and each keyword on its own and with others. All are made here, from seeds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

Schema = dict[str, Any]
Rng = random.Random
Maker = Callable[[Rng], Schema]

WORDS = [
    "name", "size", "color", "owner", "city", "kind", "label", "state", "value", "count", "price", "email", "street",
    "tags", "items", "notes", "level", "owner_id",
]  # fmt: skip
AWKWARD = ["$ref", "a b", 'quo"te', "back\\slash", "größe", "名前", "tab\there", "x/y", "", "null", "1", "a.b-c", "🙂"]
PATTERNS = [
    "^[a-z]{2,5}$", "^[A-Z]{3}-[0-9]{4}$", "^(red|green|blue)$", r"^v[0-9]+(\.[0-9]+){0,2}$", "^#[0-9a-fA-F]{6}$",
    "[0-9]{3}", r"^\+?[0-9]{5,8}$", r"^[^\s/]{1,8}$",
]  # fmt: skip
FORMATS = ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]


def names(rng: Rng, count: int) -> list[str]:
    return rng.sample(WORDS, count)


def text(rng: Rng) -> Schema:
    low = rng.randint(0, 4)
    return {"type": "string", "minLength": low, "maxLength": low + rng.randint(0, 8)}


def scalar(rng: Rng) -> Schema:
    makers: list[Maker] = [text, integer, number, enum, lambda _: {"type": "boolean"}, lambda _: {"type": "null"}]
    return rng.choice(makers)(rng)


def integer(rng: Rng) -> Schema:
    low = rng.randint(-200, 200)
    bounds: list[Schema] = [
        {"minimum": low, "maximum": low + rng.randint(0, 1000)},
        {"exclusiveMinimum": low, "exclusiveMaximum": low + rng.randint(2, 50)},
    ]
    return {"type": "integer", **rng.choice(bounds)}


def number(rng: Rng) -> Schema:
    low = round(rng.uniform(-10, 10), rng.randint(0, 2))
    high = round(low + rng.uniform(0.5, 100), 1)
    bounds: list[Schema] = [
        {"minimum": low, "maximum": high},
        {"exclusiveMinimum": low, "exclusiveMaximum": high},
        {"minimum": low, "exclusiveMaximum": high},
    ]
    return {"type": "number", **rng.choice(bounds)}


def multiple(rng: Rng) -> Schema:
    step = rng.choice([2, 5, 7, 10, 25, 60, 0.5, 0.25, 0.01])
    kind = "number" if isinstance(step, float) else "integer"
    return {"type": kind, "multipleOf": step, "minimum": rng.randint(-50, 0), "maximum": rng.randint(60, 500)}


def enum(rng: Rng) -> Schema:
    values: list[Any] = [
        "on", "off", "not yet", "ü", 'say "hi"', 3, -7, 2.5, True, None, ["a", 1], {"k": "v"}, "", "a\nb", 10**6
    ]  # fmt: skip
    return {"enum": rng.sample(values, rng.randint(1, 6))}


def const(rng: Rng) -> Schema:
    values: list[Any] = ["fixed", 42, None, False, [1, 2, [3]], {"a": {"b": []}}, "ünï", 0.5]
    return closed({"k": {"const": rng.choice(values)}, "v": scalar(rng)}, ["k", "v"])


CLOSED: Schema = {"additionalProperties": False}


def closed(properties: Schema, required: Sequence[str] = ()) -> Schema:
    return {"type": "object", "properties": properties, "required": [*required], **CLOSED}


def record(rng: Rng, value: Maker = scalar, most: int = 5) -> Schema:
    keys = names(rng, rng.randint(1, most))
    required = rng.sample(keys, rng.randint(0, len(keys)))
    return {"type": "object", "properties": {key: value(rng) for key in keys}, "required": required, **CLOSED}


def nested(rng: Rng) -> Schema:
    def level(depth: int) -> Maker:
        return lambda rng: record(rng, level(depth - 1), 2) if depth and rng.random() < 0.7 else scalar(rng)

    return record(rng, level(4), 3)


def array(rng: Rng) -> Schema:
    low = rng.randint(0, 3)
    return {"type": "array", "items": scalar(rng), "minItems": low, "maxItems": low + rng.randint(0, 3)}


def table(rng: Rng) -> Schema:
    return {"type": "array", "items": record(rng), "minItems": 1, "maxItems": 3}


def any_of(rng: Rng) -> Schema:
    return {"anyOf": [rng.choice([scalar, record, array])(rng) for _ in range(rng.randint(2, 4))]}


def one_of(rng: Rng) -> Schema:
    """Told apart by a constant, as unions of models are."""

    def variant(kind: str) -> Schema:
        made = record(rng)
        return {**made, "properties": {**made["properties"], "kind": {"const": kind}}, "required": ["kind"]}

    return {"oneOf": [variant(kind) for kind in ("cat", "dog", "eel")[: rng.randint(2, 3)]]}


def all_of(rng: Rng) -> Schema:
    first, second = names(rng, 2)
    return {
        "allOf": [
            {"type": "object", "properties": {first: scalar(rng)}, "required": [first]},
            {"properties": {second: {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": rng.randint(3, 99)}]}}},
        ],
        "required": [second],
        "unknown-annotation": True,
    } | ({"maxProperties": 2} if rng.random() < 0.5 else {})


def pattern(rng: Rng) -> Schema:
    return record(rng, lambda rng: {"type": "string", "pattern": rng.choice(PATTERNS), "maxLength": 12})


def formats(rng: Rng) -> Schema:
    chosen = rng.sample(FORMATS, 3)
    return closed({name: {"type": "string", "format": name} for name in chosen}, chosen)


def references(rng: Rng) -> Schema:
    point = closed({"x": integer(rng), "y": integer(rng)}, ["x", "y"])
    line = closed({"from": {"$ref": "#/$defs/point"}, "to": {"$ref": "#/$defs/point"}})
    return {"$defs": {"point": point, "line": line}, "type": "array", "items": {"$ref": "#/$defs/line"}, "maxItems": 3}


def recursive(rng: Rng) -> Schema:
    node: Schema = {"type": "object", "properties": {"value": scalar(rng)}, "required": ["value"], **CLOSED}
    child: Schema = {"$ref": "#/$defs/node"}
    if rng.random() < 0.5:
        node["properties"]["next"] = {"anyOf": [child, {"type": "null"}]}
    else:
        node["properties"]["children"] = {"type": "array", "items": child, "maxItems": 2}
    return {"$defs": {"node": node}, "$ref": "#/$defs/node"}


def definitions(rng: Rng) -> Schema:
    """As draft 7 has them."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "definitions": {"id": {"type": "string", "pattern": "^[a-f0-9]{4}$"}, "pair": array(rng)},
        "type": "object",
        "properties": {"id": {"$ref": "#/definitions/id"}, "pair": {"$ref": "#/definitions/pair"}},
        "required": ["id"],
        **CLOSED,
    }


def mapping(rng: Rng) -> Schema:
    return {"type": "object", "additionalProperties": scalar(rng), "maxProperties": rng.randint(1, 4)}


def pattern_properties(rng: Rng) -> Schema:
    return {
        "type": "object",
        "patternProperties": {"^x-[a-z]{1,3}$": scalar(rng), "^n[0-9]$": {"type": "integer", "minimum": 0}},
        "properties": {"id": text(rng)},
        "required": ["id"],
        **CLOSED,
    }


def optional(rng: Rng) -> Schema:
    return closed({key: scalar(rng) for key in names(rng, 8)})


def tuples(rng: Rng) -> Schema:
    parts = [scalar(rng) for _ in range(rng.randint(1, 4))]
    rest: Any = rng.choice([False, {"type": "boolean"}])
    return {"type": "array", "prefixItems": parts, "items": rest, "minItems": len(parts), "maxItems": len(parts) + 2}


def nullable(rng: Rng) -> Schema:
    return record(rng, lambda rng: {"type": rng.sample(["integer", "null", "boolean", "string"], 2), "maxLength": 6})


def awkward(rng: Rng) -> Schema:
    keys = rng.sample(AWKWARD, 4)
    return closed({key: scalar(rng) for key in keys}, keys)


def function_call(rng: Rng) -> Schema:
    called = {"enum": ["get_weather", "send_mail", "search"]}
    return closed(
        {"name": called, "arguments": {**record(rng), "description": "What to call it with."}}, ["name", "arguments"]
    )


def kubernetes(rng: Rng) -> Schema:
    port = closed({"containerPort": {"type": "integer", "minimum": 1, "maximum": 65535}})
    container = closed(
        {
            "name": {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,10}$"},
            "image": {"type": "string", "maxLength": 20},
            "ports": {"type": "array", "items": port, "maxItems": 2},
        },
        ["name", "image"],
    )
    labels = {"type": "object", "maxProperties": 2, "additionalProperties": {"type": "string", "maxLength": 8}}
    containers = {"type": "array", "items": container, "minItems": 1, "maxItems": rng.randint(1, 2)}
    return closed(
        {
            "apiVersion": {"const": "v1"},
            "kind": {"enum": ["Pod", "Service"]},
            "metadata": closed({"labels": labels}),
            "spec": closed({"containers": containers}, ["containers"]),
        },
        ["apiVersion", "kind", "spec"],
    )


def event(rng: Rng) -> Schema:
    return {
        "self": {"vendor": "org.example", "name": "event", "format": "jsonschema", "version": "1-0-0"},
        "description": "An event.",
        **record(rng, lambda rng: rng.choice([text, integer, enum])(rng), 8),
    }


KINDS: list[Maker] = [
    record, nested, array, table, enum, const, any_of, one_of, all_of, pattern, formats, integer, number, multiple,
    text, references, recursive, definitions, mapping, pattern_properties, optional, tuples, nullable, awkward,
    function_call, kubernetes, event,
]  # fmt: skip


def made(count: int) -> list[tuple[str, Schema]]:
    """So many, of all kinds in turn, with names."""
    schemas = []
    for i in range(count):
        kind = KINDS[i % len(KINDS)]
        schemas.append((f"{kind.__name__}-{i}", kind(Rng(i))))
    return schemas
