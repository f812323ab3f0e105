"""Calls in tags, and between tokens for each of their parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from edgellm.text.answers.calls import Call, KnownTools, some
from edgellm.text.answers.json_calls import named_call, read_json, skipped
from edgellm.text.answers.literal_calls import PYTHON_QUOTES, value_call
from edgellm.text.answers.literals import Literals

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
    arguments = {each[1].strip(): _typed(each[2], types.get(each[1].strip())) for each in _all_of(PARAMETER, inside)}
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


def _typed(text: str, kind: object) -> Any:
    """A value of a type of a JSON schema: the text itself where that is "string", else what the text says as JSON or in
    Python's way, and the text where it is neither."""
    text = text.removeprefix("\n").removesuffix("\n")
    if kind == "string":
        return text
    for read in (read_json, _literal):
        try:
            value = read(text)
        except ValueError:
            continue
        return text if kind is None and isinstance(value, str) else value
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
