"""Calls in JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from edgellm.text.answers.calls import Call, KnownTools, checked, some


def json_calls(text: str, tools: KnownTools) -> list[Call]:
    """{"name": ..., "arguments": {...}}, several behind each other, also with ";" or "," between them, or a list."""
    at, calls = skipped(text, 0), list[Call]()
    listed = text.startswith("[", at)
    at += listed
    while (at := skipped(text, at, "\\s,;")) < len(text) and not (listed and text[at] == "]"):
        members, at = _members(text, at)
        calls.append(_json_call(members, tools))
    if listed and (at == len(text) or text[at + 1 :].strip()):
        raise ValueError("the list of calls does not end, or not there")
    return some(calls)


def _json_call(members: Mapping[str, tuple[Any, str]], tools: KnownTools) -> Call:
    """`members`: see `_members`. Arguments may be called parameters, and be JSON in a text."""
    absent: tuple[Any, str] = ({}, "{}")
    value, raw = members.get("arguments") or members.get("parameters") or absent
    if isinstance(value, str):
        value, raw = read_json(value), value
    if value is None:
        value, raw = absent
    if not isinstance(value, dict):
        raise ValueError("arguments that are no object")
    return checked(members.get("name", absent)[0], raw, tools)


def _members(text: str, at: int) -> tuple[dict[str, tuple[Any, str]], int]:
    """The members of the object that begins at `at`, each its value and its text, and where the object ends."""
    found: dict[str, tuple[Any, str]] = {}
    if text[at : at + 1] != "{":
        raise ValueError("no object")
    at = skipped(text, at + 1)
    while text[at : at + 1] != "}":
        key, at = _decoded(text, at)
        at = skipped(text, at)
        if not isinstance(key, str) or text[at : at + 1] != ":":
            raise ValueError("no member of an object")
        begin = skipped(text, at + 1)
        value, end = _decoded(text, begin)
        found[key] = value, text[begin:end]
        at = skipped(text, end)
        if text[at : at + 1] == ",":
            at = skipped(text, at + 1)
        elif text[at : at + 1] != "}":
            raise ValueError("an object does not end")
    return found, at + 1


def skipped(text: str, at: int, kinds: str = "\\s") -> int:
    """Where something else than spaces, or what `kinds` says, comes from `at` on."""
    found = re.compile(f"[{kinds}]*").match(text, at)
    assert found is not None
    return found.end()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"no JSON: {constant}")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _decoded(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except RecursionError as error:
        raise ValueError("values in one another, too many") from error


def read_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError."""
    value, end = _decoded(text, skipped(text, 0))
    if text[end:].strip():
        raise ValueError("more behind the value")
    return value


NAMED = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\w*\s*)?(?:\[ARGS\])?\s*(?=\{)")


def mistral_calls(text: str, tools: KnownTools) -> list[Call]:
    """A JSON list, as older models write it, or `name[ARGS]{...}`."""
    begun = NAMED.match(text)
    return json_calls(text, tools) if begun is None else [named_call(begun[1], text[begun.end() :], tools)]


def named_call(name: str, arguments: str, tools: KnownTools) -> Call:
    arguments = arguments.strip()
    if not isinstance(read_json(arguments), dict):
        raise ValueError("arguments that are no object")
    return checked(name, arguments, tools)
