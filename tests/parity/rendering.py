"""Chats as transformers renders them: `python rendering.py DIRECTORY < cases > texts`, a JSON list each way.

A case is {"tokenizer": a directory, "messages", "arguments"}; its answer {"text": ...} or {"error": ...}.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import Any

from transformers import AutoTokenizer

import tools_of_tests

opened = cache(AutoTokenizer.from_pretrained)


def answer(case: dict[str, Any]) -> dict[str, str]:
    arguments = {**case["arguments"]}
    if "tools" in arguments:
        arguments["tools"] = tools_of_tests.resolved(arguments["tools"])
    try:
        text = opened(case["tokenizer"]).apply_chat_template(case["messages"], tokenize=False, **arguments)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"text": text}


if __name__ == "__main__":
    json.dump([answer(case) for case in json.load(sys.stdin)], sys.stdout)
