"""Tool calls, reasoning and constrained answers over HTTP. What the tiny model says is forced by a grammar, so that it
says something that can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import jsonschema
import openai
import pytest

from conftest_of_server import LONG, PackageMaker, Server
from edgellm.server import ServerSettings

CHAT = "/v1/chat/completions"
USER: Any = [{"role": "user", "content": "hello"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Ada", "Bob"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TEMPLATE = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def calling(make_package: PackageMaker) -> Iterator[Server]:
    """A server of a package whose template has tools, in the manner of Hermes."""
    path = make_package(replace(LONG, chat_template=TEMPLATE))
    with Server({"tiny": path}, ServerSettings(threads=1)) as server:
        yield server


def says(text: str) -> dict[str, Any]:
    return {"messages": USER, "choices": [text], "max_tokens": 300, "temperature": 0}


CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'


def test_a_call_is_read(calling: Server) -> None:
    found = calling.ask(CHAT, **says(f"Let me see. {CALL}"), tools=[TOOL])["choices"][0]
    assert found["finish_reason"] == "tool_calls"
    assert found["message"]["content"] == "Let me see."
    (call,) = found["message"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
    assert call["id"].startswith("call_")


def test_a_call_is_streamed(calling: Server) -> None:
    with openai.OpenAI(base_url=f"{calling.url}/v1", api_key="none") as client:
        body = {**says(f"Hm. {CALL}{CALL.replace('Rome', 'Oslo')}"), "model": "tiny"}
        choices = body.pop("choices")
        with client.chat.completions.stream(**body, tools=[TOOL], extra_body={"choices": choices}) as stream:
            final = stream.get_final_completion()
    message = final.choices[0].message
    assert message.tool_calls is not None
    assert [json.loads(call.function.arguments)["city"] for call in message.tool_calls] == ["Rome", "Oslo"]
    assert message.content == "Hm."
    assert final.choices[0].finish_reason == "tool_calls"


def test_a_loop_of_an_agent(calling: Server) -> None:
    """The answer of a tool goes back, and the model reads both."""
    with openai.OpenAI(base_url=f"{calling.url}/v1", api_key="none") as client:
        first = client.chat.completions.create(
            model="tiny", messages=USER, tools=[TOOL], max_tokens=300, temperature=0, extra_body={"choices": [CALL]}
        )
        called = first.choices[0].message
        assert called.tool_calls is not None
        results: Any = [{"role": "tool", "tool_call_id": call.id, "content": "sun"} for call in called.tool_calls]
        conversation: Any = [*USER, called.model_dump(exclude_none=True), *results]
        second = client.chat.completions.create(
            model="tiny", messages=conversation, tools=[TOOL], max_tokens=20, extra_body={"choices": ["Sun in Rome."]}
        )
    assert (second.choices[0].message.content, second.choices[0].finish_reason) == ("Sun in Rome.", "stop")
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


def test_without_tools_a_call_is_text(calling: Server) -> None:
    for given in ({}, {"tools": [TOOL], "tool_choice": "none"}):
        found = calling.ask(CHAT, **says(CALL), **given)["choices"][0]
        assert (found["message"]["content"], found["finish_reason"]) == (CALL, "stop")


NEVER: Any = {"type": "function", "function": {"name": "never", "parameters": {"type": "object", "maxProperties": 0}}}


def test_a_call_is_forced_and_held_to_the_schema(calling: Server) -> None:
    parameters = {**SCHEMA, "description": "Of a person (any)."}
    tools = [{"type": "function", "function": {"name": "greet", "parameters": parameters}}, NEVER]
    asked: Any = {"model": "tiny", "messages": USER, "tools": tools, "max_tokens": 600}
    named = {"type": "function", "function": {"name": "greet"}}
    with openai.OpenAI(base_url=f"{calling.url}/v1", api_key="none") as client:
        for temperature, choice in ((0, "required"), (1.5, "required"), (0, named), (1.5, named)):
            given = {"tool_choice": choice, "temperature": temperature, "seed": 3, "parallel_tool_calls": False}
            answer = client.chat.completions.create(**asked, **given).choices[0]
            with client.chat.completions.stream(**asked, **given) as stream:
                streamed = stream.get_final_completion().choices[0]
            for found in (answer, streamed):
                assert (found.finish_reason, found.message.content or "") == ("tool_calls", "")
                assert found.message.tool_calls is not None
                (call,) = found.message.tool_calls
                assert call.function.name == "greet" or choice == "required"
                by_name = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
                jsonschema.validate(json.loads(call.function.arguments), by_name[call.function.name])


def test_strict_tools_leave_the_text_free(calling: Server) -> None:
    strict = {"type": "function", "function": {**TOOL["function"], "strict": True}}
    found = calling.ask(CHAT, messages=USER, tools=[strict], max_tokens=30, temperature=0)["choices"][0]
    assert found["finish_reason"] == "length"
    assert found["message"]["content"]
    refused = calling.post(CHAT, {**says("a"), "tools": [strict]})
    assert refused.status_code == 400
    assert "choices says what the text may be, and so do the tools" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "wether"}}}, "tool_choice"),
        ({"tools": [{**TOOL, "function": {"name": "f", "parameters": {"type": "array"}}}]}, "tool_choice"),
        (
            {"tools": [{**TOOL, "function": {"name": "f", "parameters": {"not": {}}}}], "tool_choice": "required"},
            None,
        ),
    ],
)
def test_choices_that_are_refused(calling: Server, given: dict[str, Any], param: str | None) -> None:
    refused = calling.post(CHAT, {"messages": USER, "max_tokens": 5, **given})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_tools_that_a_template_leaves_out(server: Server) -> None:
    refused = server.post(CHAT, {**says("a"), "tools": [TOOL]})
    assert refused.status_code == 400
    assert "tools" in refused.json()["error"]["message"]


def test_reasoning(make_package: PackageMaker) -> None:
    path = make_package(replace(LONG, chat_template=TEMPLATE + "{# <think> and </think> #}"))
    with Server({"tiny": path}, ServerSettings(threads=1)) as server:
        asked = says("<think>It greets me.</think>Hello!")
        message = server.ask(CHAT, **asked)["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("It greets me.", "Hello!")
        with server.http.stream("POST", CHAT, json={**asked, "stream": True}) as response:
            lines = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]
        new = [line["choices"][0]["delta"] for line in lines]
        assert "".join(delta.get("reasoning_content", "") for delta in new) == "It greets me."
        assert "".join(delta.get("content") or "" for delta in new) == "Hello!"


@pytest.mark.parametrize(
    "given",
    [
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "person", "schema": SCHEMA, "strict": True},
            }
        },
        {"json_schema": SCHEMA},
    ],
    ids=["response_format", "json_schema"],
)
@pytest.mark.parametrize("temperature", [0, 1.5])
def test_schemas(server: Server, given: dict[str, Any], temperature: float) -> None:
    asked = {"messages": USER, "max_tokens": 200, "temperature": temperature, "seed": 1, **given}
    if temperature:
        asked["n"] = 3
    for choice in server.ask(CHAT, **asked)["choices"]:
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)


def test_expressions_and_json_objects(server: Server) -> None:
    asked = {"prompt": "a", "max_tokens": 100, "temperature": 0}
    assert len(server.ask("/v1/completions", **asked, regex="[a-f]{12}")["choices"][0]["text"]) == 12
    body = {"messages": USER, "max_tokens": 40, "temperature": 0, "response_format": {"type": "json_object"}}
    assert server.ask(CHAT, **body)["choices"][0]["message"]["content"].startswith("{")
    for wrong in ({"regex": "("}, {"json_schema": {"type": "nothing"}}, {"regex": "a", "choices": ["b"]}):
        refused = server.post("/v1/completions", {**asked, **wrong})
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
    refused = server.post(CHAT, {**body, "response_format": {"type": "xml"}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "response_format")
    text = {"format": {"type": "json_schema", "name": "person", "schema": SCHEMA}}
    found = server.ask("/v1/responses", input="hello", max_output_tokens=200, temperature=0, text=text)
    jsonschema.validate(json.loads(found["output"][0]["content"][0]["text"]), SCHEMA)


def test_constrained_requests_beside_others(server: Server) -> None:
    """Each gets what it gets alone."""
    asked: list[dict[str, Any]] = [
        {
            "prompt": "x" * n,
            "max_tokens": 60,
            "temperature": n % 2,
            "seed": n,
            **({"json_schema": SCHEMA} if n % 3 else {}),
        }
        for n in range(1, 9)
    ]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda body: server.ask("/v1/completions", **body)["choices"], asked))
    assert together == [server.ask("/v1/completions", **body)["choices"] for body in asked]
