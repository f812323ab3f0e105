"""Grammars of values outside of JSON: in Python's way, in Gemma's, and as they are between tags.

What is said of values is held to in full, or the schema is refused. JSON is a way to write any value that all readers
take; it stands in where the way of a format has no words for what a schema says.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.errors import OptionError
from edgellm.text.answers.lark import Lark, either, excluded, literal
from edgellm.text.answers.literals import KEY
from edgellm.text.answers.schemas import DEFINITIONS, Schema, resolved, said

NUMBER = r"/-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?/"  # that a float can hold
INTEGER = "/-?(0|[1-9][0-9]{0,17})/"
STRING = r'/"([^"\\\x00-\x1f]|\\["\\nrt])*"/'
ANY_KEY = "/[A-Za-z_][A-Za-z0-9_]{0,63}/"
ELSEWHERE = re.compile(r'"\$ref": "(?!#/(?:\$defs|definitions)/)')
RAW_KEYS = {"type", "pattern", "minLength", "maxLength"}
OBJECT_KEYS = {"type", "properties", "required", "additionalProperties"}


@dataclass(frozen=True)
class Style:
    """How values are written. `words`: true, false and null. `quote`: what strings stand between as they are; "" for
    strings as in JSON, which then do not hold `never`. `pair`: what stands between an inner key and its value."""

    words: tuple[str, str, str] = ("true", "false", "null")
    quote: str = ""
    comma: str = ", "
    pair: str = ": "
    bare_keys: bool = False
    never: tuple[str, ...] = ()

    def key(self, name: str) -> str:
        return name if self.bare_keys and KEY.fullmatch(name) else literal(name)

    def argument(self, name: str) -> str:
        """The name of an argument, before what stands between it and its value."""
        return name if KEY.fullmatch(name) else literal(name)


PYTHON = Style(("True", "False", "None"))


@dataclass(frozen=True)
class Values:
    """Values of the schemas in `root`, which are written in `style`."""

    lark: Lark
    root: Schema
    style: Style

    def value(self, schema: Any) -> str:
        """An expression for the values that a schema allows."""
        words = said(schema) if isinstance(schema, Mapping) else {}
        match words:
            case {**others} if not others:
                return self._anything()
            case {"$ref": str(), **others} if not others:
                return self.lark.once((id(self.root), schema["$ref"]), lambda: self._referred(schema))
            case {"anyOf": [_, *_] as several, **others} if not others:
                return either([self.value(one) for one in several])
            case {"type": [_, *_] as several}:
                return either([self.value({**schema, "type": kind}) for kind in several])
            case {"enum": [_, *_] as values, **others} if not others.keys() - {"type"}:
                return either([self._one(value) for value in values])
            case {"const": value, **others} if not others.keys() - {"type"}:
                return self._one(value)
        return self._of_type(schema, words)

    def _referred(self, schema: Any) -> str:
        found = resolved(schema, self.root)
        return self._json(schema) if found is None or _speaks_of_itself(found) else self.value(found)

    def _of_type(self, schema: Any, words: Mapping[str, Any]) -> str:
        yes, no, nothing = self.style.words
        others = words.keys() - {"type"}
        match words.get("type"):
            case "boolean" if not others:
                return either([literal(yes), literal(no)])
            case "null" if not others:
                return literal(nothing)
            case "number" if not others:
                return self.lark.terminal(NUMBER)
            case "integer" if not others:
                return self.lark.terminal(INTEGER)
            case "string" if self.style.quote:
                quote = self.style.quote
                return f"{self.lark.text(quote)} {raw_text(self.lark, words, quote)}"
            case "string" if not others:
                return self.lark.terminal(" & ".join([STRING, *excluded(self.style.never)]))
            case "array" | "object" as kind if not others:
                self._anything()  # which they are made of
                return self.lark.rule(self._any_array() if kind == "array" else self._any_object())
            case "array" if not others - {"items", "minItems", "maxItems"}:
                return self._array(words)
            case "object" if words.keys() <= OBJECT_KEYS:
                style = self.style
                inside = self.items(schema, lambda name: literal(style.key(name) + style.pair))
                return f'"{{" {inside} "}}"'
        return self._json(schema)

    def items(self, schema: Schema, before: Callable[[str], str]) -> str:
        """The members of an object behind each other. `before`: what stands before the value of each, by name."""
        return members(
            self.lark, schema, lambda name, one: f"{before(name)} {self.value(one)}", literal(self.style.comma)
        )

    def any_items(self, pair: str) -> str:
        """Any members, behind each other."""
        item = f"{self.lark.terminal(ANY_KEY)} {literal(pair)} {self._anything()}"
        return f"({item} ({literal(self.style.comma)} {item})*)?"

    def _anything(self) -> str:
        """Any value; numbers that a float can hold."""
        name = "anything"
        kinds = [self._of_type({}, {"type": kind}) for kind in ("number", "string", "boolean", "null")]
        self.lark.late(name, " | ".join([*kinds, self._any_array(), self._any_object()]))
        return name

    def _any_array(self) -> str:
        comma = literal(self.style.comma)
        return f'"[" (anything ({comma} anything)*)? "]"'

    def _any_object(self) -> str:
        comma, pair = literal(self.style.comma), literal(self.style.pair)
        key = self.lark.terminal(" & ".join([STRING, *excluded(self.style.never)]))
        return f'"{{" ({key} {pair} anything ({comma} {key} {pair} anything)*)? "}}"'

    def _array(self, words: Mapping[str, Any]) -> str:
        least, most = words.get("minItems", 0), words.get("maxItems", math.inf)
        if most < least:
            raise OptionError(f"an array of at least {least} and at most {most} items")
        item, comma = self.value(words.get("items", {})), literal(self.style.comma)
        if most < 1:
            return '"[]"'
        most_more = "" if most == math.inf else most - 1
        rest = "" if most == 1 else f"({comma} {item}){{{max(0, least - 1)},{most_more}}}"
        return f'"[" {item} {rest} "]"' if least else f'"[" ({item} {rest})? "]"'

    def _one(self, value: Any) -> str:
        """Exactly this value."""
        style = self.style
        match value:
            case bool() | None:
                return literal(style.words[2 if value is None else 0 if value else 1])
            case str() if style.quote and style.quote not in value:
                quote = self.lark.text(style.quote)
                return f"{quote} {literal(value)} {quote}" if value else f"{quote} {quote}"
            case list():
                inside = f" {literal(style.comma)} ".join(map(self._one, value))
                return f'"[" {inside} "]"'
            case dict():
                pairs = (f"{literal(style.key(key) + style.pair)} {self._one(one)}" for key, one in value.items())
                return f'"{{" {f" {literal(style.comma)} ".join(pairs)} "}}"'
        return literal(json.dumps(value, ensure_ascii=False))

    def _json(self, schema: Any) -> str:
        """A value as in JSON, which all readers take. Raises OptionError for references that cannot be followed."""
        if schema is False:
            raise OptionError("false in a schema, which allows no value")
        own = schema if isinstance(schema, Mapping) else {}
        whole = {**own, **{key: self.root[key] for key in DEFINITIONS if key in self.root}}
        if ELSEWHERE.search(json.dumps(whole)):
            raise OptionError("a $ref to something else than $defs")
        return self.lark.json(whole)


def raw_text(
    lark: Lark, words: Mapping[str, Any], end: str, others: Sequence[str] = (), patterns: Sequence[str] = ()
) -> str:
    """A string as it is, and its end. `others` and `patterns`: see `Lark.without`. Raises OptionError for what cannot
    be said so."""
    if unknown := words.keys() - RAW_KEYS:
        raise _refused("a string that is written without quotes", unknown)
    least, most = words.get("minLength", 0), words.get("maxLength")
    shapes = [] if not (least or most is not None) else [f"(?s:.){{{least},{'' if most is None else most}}}"]
    if isinstance(pattern := words.get("pattern"), str):
        shapes.append(_searched(pattern))
    return lark.before(end, others, patterns, shapes)


def _searched(pattern: str) -> str:
    """A regular expression for texts in which a pattern is found, as JSON Schema has them. Raises OptionError."""
    begins, ends = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith("\\$")
    body = pattern[begins : len(pattern) - ends]
    if "|" in body and (begins or ends) and not re.fullmatch(r"\([^()]*\)", body):
        raise OptionError(f"the pattern {pattern!r}, whose ^ or $ may be of one alternative; put them in parentheses")
    body = re.sub(r"(?<!\\)/", r"\/", body)
    return f"{'' if begins else '(?s:.*)'}(?:{body}){'' if ends else '(?s:.*)'}"


def members(lark: Lark, schema: Schema, write: Callable[[str, Any], str], comma: str) -> str:
    """The members of an object, in the order of its schema, as `write` has each. Raises OptionError for what cannot be
    be said so."""
    if unknown := said(schema).keys() - OBJECT_KEYS:
        raise _refused("the object", unknown)
    properties = _mapping(schema.get("properties"))
    required = [name for name in schema.get("required") or () if isinstance(name, str)]
    every = {name: one for name, one in properties.items() if one is not False or name in required}
    every |= {name: schema.get("additionalProperties", True) for name in required if name not in properties}
    return _in_order(lark, [(write(name, one), name in required) for name, one in every.items()], comma)


def _in_order(lark: Lark, every: Sequence[tuple[str, bool]], comma: str) -> str:
    """Members, each with whether it has to be there, in this order, with commas between those that are."""
    tails = [""]  # what may follow behind a member, from the last one on
    for member, required in reversed(every):
        one = lark.rule(member)
        tails.append(lark.rule(f"{comma} {one} {tails[-1]}" if required else f"({comma} {one})? {tails[-1]}"))
    tails.reverse()
    firsts = []
    for index, (member, required) in enumerate(every):
        firsts.append(f"{lark.rule(member)} {tails[index + 1]}")
        if required:
            return either(firsts)
    return f"({' | '.join(firsts)})?" if firsts else ""


def _speaks_of_itself(schema: Any) -> bool:
    return "$ref" in json.dumps(schema)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _refused(what: str, keys: Any) -> OptionError:
    return OptionError(f"{what} has {', '.join(sorted(keys))}")
