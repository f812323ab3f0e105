"""A program that gets no more memory: python starving.py PACKAGE BYTES. It loads a decoder, lets the system refuse it
more than BYTES beyond what it has, and says as JSON what became of calls that need more. A small one behind each
gives what it always gives."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.random  # noqa: F401 - numpy imports it late, and then there is no room for its code

import edgellm
from edgellm.loading import load_as

PAGE = 4096  # bytes
LONG: dict[str, Any] = {"max_new_tokens": 200, "eos_token_id": []}


def forbid_more_than(spare: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    resource.setrlimit(resource.RLIMIT_AS, (used + spare, resource.RLIM_INFINITY))


def outcome(call: Callable[[], object]) -> list[str]:
    """What was raised: its class and those above it. Empty if nothing was."""
    try:
        call()
    except Exception as error:
        return [kind.__name__ for kind in type(error).__mro__] + [str(error)]
    return []


def main() -> None:
    model = load_as(edgellm.Model, sys.argv[1], threads=2)
    text = "hello there " * 10
    calls: dict[str, Callable[[], object]] = {
        "batch": lambda: model.generate([text] * 400, **LONG),
        "beams": lambda: model.generate(text, num_beams=130, **LONG),
        "samples": lambda: model.generate(text, do_sample=True, num_return_sequences=400, **LONG),
    }
    expected = model.generate("hello", max_new_tokens=10).tokens
    forbid_more_than(int(sys.argv[2]))
    found = {}
    for name, call in calls.items():
        found[name] = outcome(call)
        assert model.generate("hello", max_new_tokens=10).tokens == expected
    print(json.dumps(found))


if __name__ == "__main__":
    main()
