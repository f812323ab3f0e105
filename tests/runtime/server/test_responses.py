"""/v1/responses with tools and reasoning, by OpenAI's client, which checks the order of the events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest

from conftest_of_server import LONG, PackageMaker, Server
from edgellm.openai.options import effort_variables
from edgellm.openai.schema import ResponsesRequest
from edgellm.server import ServerSettings
from edgellm.server.items import messages_of

TEMPLATE = (
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}\n{% endif %}{# <tool_call> </think> #}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.reasoning_content or '' }}"
    "{{ message.content }}{% for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% else %}<think>{% endif %}{% endif %}"
)
CITY = {
    "type": "object",
    "properties": {"city": {"const": "Rome"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "name": "weather", "description": "Of a city.", "parameters": CITY, "strict": True}
ASKED: Any = {"model": "tiny", "temperature": 0, "max_output_tokens": 200, "extra_body": {"reasoning_budget": 6}}
CALLED: Any = {**ASKED, "input": "hello", "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}


@pytest.fixture(scope="module")
def server(make_package: PackageMaker) -> Iterator[Server]:
    path = make_package(replace(LONG, chat_template=TEMPLATE))
    with Server({"tiny": path}, ServerSettings(threads=1)) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


def test_a_model_thinks_and_calls(client: openai.OpenAI) -> None:
    found = client.responses.create(**CALLED)
    assert found.status == "completed"
    assert (found.tool_choice, found.parallel_tool_calls) == ("required", False)
    thought, call = found.output
    assert thought.type == "reasoning"
    assert thought.content is not None
    assert 1 <= len(thought.content[0].text) <= 6
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments), call.status) == ("weather", {"city": "Rome"}, "completed")
    assert found.usage is not None
    assert 0 < found.usage.output_tokens_details.reasoning_tokens < found.usage.output_tokens


def test_both_are_streamed(client: openai.OpenAI) -> None:
    whole = client.responses.create(**CALLED)
    with client.responses.stream(**CALLED) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds: list[str] = []
    for event in events:
        kind = event.type.removeprefix("response.")
        kinds += [] if kinds[-1:] == [kind] else [kind]
    assert kinds == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done", "content_part.done",
        "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    told = [item.to_dict() for item in final.output]
    for one, other in zip(told, whole.output, strict=True):
        ids = ("id", "call_id", "parsed_arguments")
        assert {k: v for k, v in one.items() if k not in ids} == {
            k: v for k, v in other.to_dict().items() if k not in ids
        }


def test_reasoning_and_a_text(client: openai.OpenAI, server: Server) -> None:
    text: Any = {"format": {"type": "json_schema", "name": "x", "schema": {"const": "Hello."}}}
    found = client.responses.create(**ASKED, input="hello", text=text, tools=[TOOL])
    assert [item.type for item in found.output] == ["reasoning", "message"]
    assert found.output_text == '"Hello."'
    plain = client.responses.create(**ASKED, input="hello", text=text, tools=[TOOL], reasoning={"effort": "none"})
    assert [item.type for item in plain.output] == ["message"]
    refused = server.post("/v1/responses", {"input": "hello", "tools": [{"type": "web_search"}]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tools[0]")
    refused = server.post("/v1/responses", {"input": "hello", "tools": [TOOL], "tool_choice": {"type": "web_search"}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tool_choice")


def test_a_loop_of_an_agent(client: openai.OpenAI, server: Server) -> None:
    """What was answered goes back as it is, with what the tool said."""
    first = client.responses.create(**CALLED)
    call = first.output[-1]
    assert call.type == "function_call"
    answer = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    conversation: Any = [{"role": "user", "content": "hello"}, *first.output, answer]
    second = client.responses.create(**{**CALLED, "input": conversation})
    assert second.usage is not None
    thought = first.output[0]
    assert thought.type == "reasoning"
    assert thought.content is not None
    function = {"name": call.name, "arguments": call.arguments}
    messages = [
        {"role": "user", "content": "hello"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": thought.content[0].text,
            "tool_calls": [{"id": call.call_id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call.call_id, "content": "sun"},
    ]
    chat_tool = {"type": "function", "function": {key: value for key, value in TOOL.items() if key != "type"}}
    asked = {"messages": messages, "tools": [chat_tool], "max_tokens": 1}
    assert second.usage.input_tokens == server.ask("/v1/chat/completions", **asked)["usage"]["prompt_tokens"]


def test_items_of_one_turn_are_one_message() -> None:
    def call(name: str) -> dict[str, Any]:
        return {"type": "function_call", "call_id": f"id-{name}", "name": name, "arguments": "{}"}

    thought = {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "hm"}]}
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]}
    output = {"type": "function_call_output", "call_id": "id-a", "output": [{"type": "input_text", "text": "1"}]}
    user = {"role": "user", "content": "Hi"}
    only_theirs = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "x"}
    items = [user, thought, said, call("a"), call("b"), output, only_theirs, call("c"), user, said, said]
    messages = messages_of(ResponsesRequest(input=items, instructions="Be brief."))
    called = [[each["function"]["name"] for each in message.get("tool_calls", [])] for message in messages]
    assert [message["role"] for message in messages] == [
        "system", "user", "assistant", "tool", "assistant", "user", "assistant", "assistant",
    ]  # fmt: skip
    assert called == [[], [], ["a", "b"], [], ["c"], [], [], []]
    assert (messages[2]["content"], messages[2]["reasoning_content"]) == ("I look.", "hm")
    assert messages[3] == {"role": "tool", "tool_call_id": "id-a", "content": "1"}


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "function_call", "call_id": "x", "arguments": "{}"}, "input[0].name"),
        ({"type": "function_call_output", "output": "x"}, "input[0].call_id"),
        ({"type": "function_call_output", "call_id": "x", "output": [{"type": "input_image"}]}, "input[0].output"),
        ({"type": "web_search_call"}, "input[0]"),
    ],
)
def test_items_that_are_none(server: Server, item: dict[str, Any], param: str) -> None:
    refused = server.post("/v1/responses", {"input": [item]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("template", "effort", "variables"),
    [
        ("{{ reasoning_effort }}", "low", {"reasoning_effort": "low"}),
        ("{% if enable_thinking %}", "none", {"enable_thinking": False}),
        ("{% if enable_thinking %}", "high", {"enable_thinking": True}),
        ("", "high", {}),
    ],
)
def test_effort_is_for_the_template(template: str, effort: str, variables: dict[str, Any]) -> None:
    assert effort_variables(effort, template) == variables
