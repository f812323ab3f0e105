"""Calls in tags, and between tokens for each of their parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from edgellm.text.answers.calls import Call, KnownTools, some
from edgellm.text.answers.json_calls import named_call, read_json, skipped
from edgellm.text.answers.literal_calls import PYTHON_QUOTES, value_call
from edgellm.text.answers.literals import Literals
from edgellm.text.answers.schemas import type_of

FUNCTION = re.compile(r"\s*<function=([^>\n]+)>(.*?)(?:</function>|\Z)\s*", re.DOTALL)
PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>(.*?)(?:</parameter>|(?=<parameter=)|\Z)\s*", re.DOTALL)


def tagged_calls(text: str, tools: KnownTools) -> list[Call]:
    """<function=name><parameter=key>value</parameter></function>, or JSON between the outer tags."""
    return some([_tagged_call(found, tools) for found in _all_of(FUNCTION, text)])


def _tagged_call(found: re.Match[str], tools: KnownTools) -> Call:
    name, inside = found[1].strip(), found[2]
    if inside.lstrip().startswith("{"):
        return named_call(name, inside, tools)
    types = tools.get(name, {})
    given = ((each[1].strip(), each[2]) for each in _all_of(PARAMETER, inside))
    arguments = {key: _typed(value, types.get(key, frozenset())) for key, value in given}
    return value_call(name, arguments, tools)


def _all_of(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Matches without anything between them."""
    at = skipped(text, 0)
    while at < len(text):
        found = pattern.match(text, at)
        if found is None:
            raise ValueError(f"unexpected text at {at}")
        yield found
        at = found.end()


def _typed(text: str, types: frozenset[str]) -> Any:
    """A value of one of the types of a JSON schema: the text itself where that can only be "string", else what the text
    says as JSON or in Python's way, and the text where it is neither, or where that is of another type than asked for
    and "string" is one of these."""
    text = text.removeprefix("\n").removesuffix("\n")
    if types == {"string"}:
        return text
    for read in (read_json, _literal):
        try:
            value = read(text)
        except ValueError:
            continue
        is_other = isinstance(value, str) if not types else "string" in types and type_of(value) not in types
        return text if is_other and not ("number" in types and type_of(value) == "integer") else value
    return text


def _literal(text: str) -> Any:
    literals = Literals(text, PYTHON_QUOTES)
    value = literals.value()
    if not literals.at_end():
        raise ValueError("more behind the value")
    return value


# DeepSeek

PIECE = re.compile(r"\s*<｜tool▁call▁begin｜>(.*?)<｜tool▁sep｜>(.*?)(?:<｜tool▁call▁end｜>|\Z)\s*", re.DOTALL)
FENCED = re.compile(r"\s*([^\n]+)\n```(?:json)?\n(.*?)\n?```\s*", re.DOTALL)


def deepseek_calls(text: str, tools: KnownTools) -> list[Call]:
    """`name<sep>{...}`, or `function<sep>name` and a block of JSON, between the tokens of a call."""
    return some([_deepseek_call(found[1], found[2], tools) for found in _all_of(PIECE, text)])


def _deepseek_call(first: str, second: str, tools: KnownTools) -> Call:
    fenced = FENCED.fullmatch(second)
    return (
        named_call(first.strip(), second, tools) if fenced is None else named_call(fenced[1].strip(), fenced[2], tools)
    )
