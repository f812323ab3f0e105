"""Tools in OpenAI's lines: calls are forced, held to their schemas, and read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema

from edgellm.bulk import run_batch
from tiny_package import TinyConfig

TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}{# <tool_call> </think> #}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}


def test_calls_of_a_batch(make_package: Callable[[TinyConfig], Path], tmp_path: Path) -> None:
    package = make_package(TinyConfig(context_length=2048, chat_template=TEMPLATE))
    user = [{"role": "user", "content": "hello"}]
    said = '<think>hm</think>Let me see. <tool_call>{"name": "weather", "arguments": {}}</tool_call>'
    bodies: list[dict[str, Any]] = [
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "temperature": temperature}
        for temperature in (0, 1.5)
    ]
    bodies += [
        {"tools": [TOOL], "choices": [said]},
        {"choices": [said]},
        {"tools": [TOOL], "tool_choice": "any"},
        {"tools": [TOOL], "tool_choice": "none", "choices": ["a"]},
    ]
    lines = [
        {"custom_id": str(i), "url": "/v1/chat/completions", "body": {"messages": user, "max_tokens": 400, **body}}
        for i, body in enumerate(bodies)
    ]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run_batch(package, tmp_path / "in.jsonl", tmp_path / "out.jsonl", threads=1)
    found = [json.loads(line)["response"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for response in found[:2]:
        (choice,) = response["body"]["choices"]
        (call,) = choice["message"]["tool_calls"]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
        jsonschema.validate(json.loads(call["function"]["arguments"]), PARAMETERS)
    message = found[2]["body"]["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "Let me see.")
    assert message["tool_calls"][0]["function"] == {"name": "weather", "arguments": "{}"}
    message = found[3]["body"]["choices"][0]["message"]
    assert message["content"] == said.partition("</think>")[2]
    assert (found[4]["status_code"], found[4]["body"]["error"]["param"]) == (400, "tool_choice")
    assert found[5]["body"]["choices"][0]["message"]["content"] == "a"
