"""Calls in Python's way, and in Gemma's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgellm.text.answers.calls import Call, KnownTools, Reader, checked, some
from edgellm.text.answers.json_calls import json_calls
from edgellm.text.answers.literals import Literals, json_text

PYTHON_QUOTES = ('"', "'")


def python_calls(text: str, tools: KnownTools) -> list[Call]:
    """`f(a=1)`, several on lines of their own or with ";" between them, or in a list; also JSON."""
    if re.match(r"\s*(?:\{|\[\s*\{)", text):
        return json_calls(text, tools)
    literals, calls = Literals(text, PYTHON_QUOTES), list[Call]()
    listed = literals.take("[")
    while not literals.at_end() and not (listed and literals.take("]")):
        calls.append(value_call(*literals.python_call(), tools))
        if listed and not literals.take(","):
            literals.expect("]")
            break
        while literals.take(";"):
            pass
    if not literals.at_end():
        raise ValueError("more behind the calls")
    return some(calls)


def gemma_calls(quote: str) -> Reader:
    """`call:name{key:value}`, strings between two of `quote`, or of the usual quotes."""

    def read(text: str, tools: KnownTools) -> list[Call]:
        literals, calls = Literals(text, (quote, *PYTHON_QUOTES)), list[Call]()
        while not literals.at_end():
            calls.append(value_call(*literals.gemma_call(), tools))
        return some(calls)

    return read


def value_call(name: str, arguments: Mapping[str, Any], tools: KnownTools) -> Call:
    return checked(name, json_text(arguments), tools)
