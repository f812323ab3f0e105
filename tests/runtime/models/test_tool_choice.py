"""`chat` with tools that have to be called: a model of random weights, greedy and sampled, calls them as they ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import edgellm
from edgellm.text.answers import AnswerFormat, answer_of
from tiny_package import TinyConfig

MARKERS = {
    "hermes": "<tool_call>", "coder": "<tool_call><function=", "mistral": "[TOOL_CALLS][ARGS]",
    "lfm2": "<|tool_call_start|>", "gemma": "<start_function_call>", "llama": "<|python_tag|>", "bare": "tool",
    "gpt-oss": "<|channel|><|message|><|start|>",
}  # fmt: skip
TEMPLATE = (
    "{# %s #}{%% for tool in tools or [] %%}{{ tool | tojson }}{%% endfor %%}{%% for message in messages %%}"
    "{{ message.content }}{%% endfor %%}"
)
PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Rome", "Oslo"]}, "note": {"type": "string", "maxLength": 4}, "exact": {"type": "boolean"},
        "days": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 9}, "maxItems": 2},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}


@pytest.mark.parametrize("name", MARKERS)
def test_calls_validate(make_package: Callable[[TinyConfig], Path], name: str) -> None:
    template = TEMPLATE % MARKERS[name]
    model = edgellm.load(make_package(TinyConfig(context_length=1024, chat_template=template)), threads=1)
    assert isinstance(model, edgellm.Model)
    form = AnswerFormat.of(template)
    samplings: list[dict[str, Any]] = [
        {},
        *({"do_sample": True, "temperature": 1.5, "seed": seed} for seed in range(3)),
    ]
    for sampling in samplings:
        given: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
        if form.is_harmony:  # which would think for all of its tokens
            sampling = {**sampling, "logit_bias": {ord("a"): -1000}}
        found = model.chat([{"role": "user", "content": "Hi"}], max_new_tokens=400, **given, **sampling)
        parser = form.parser(tools=[TOOL])
        (call,) = answer_of([*parser.add(found.text), *parser.finish()]).tool_calls
        jsonschema.validate(json.loads(call.arguments), PARAMETERS)
        assert (call.name, found.finish_reason, found.complete) == ("weather", "eos", True)
