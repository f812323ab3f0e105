"""Other people's clients of OpenAI's interface, each asked the same: python asking.py CLIENT URL DIRECTORY

Runs in an environment of theirs. Prints JSON: what each thing that was asked gave.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false", "DO_NOT_TRACK": "1", "OPENAI_API_KEY": "none", "NO_PROXY": "127.0.0.1",
}  # fmt: skip
os.environ.update(QUIET)  # before they are imported: what they send elsewhere, and fetch


def stay_here(event: str, arguments: tuple[Any, ...]) -> None:
    """Nothing leaves this machine, whatever a setting is called."""
    host = {"socket.connect": lambda: arguments[1][0], "socket.getaddrinfo": lambda: arguments[0]}.get(event)
    if host is not None and host() not in ("127.0.0.1", "localhost", None):
        raise PermissionError(f"{event} of {host()!r}")


TEXT, TEXTS = "hello", ["a cat", "a dog"]
QUESTION: Any = [{"role": "user", "content": TEXT}]
SETTINGS: dict[str, Any] = {"temperature": 0, "max_tokens": 9}
PERSON = {
    "title": "Person",
    "type": "object",
    "properties": {"name": {"enum": ["Ada", "Bob"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def weather(city: str) -> str:
    """The weather of a city."""
    return f"sun in {city}"


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def person_type() -> Any:
    from typing import Literal

    from pydantic import BaseModel, ConfigDict, Field

    class Person(BaseModel):
        model_config = ConfigDict(extra="forbid")
        name: Literal["Ada", "Bob"]
        age: int = Field(ge=0, le=99)

    return Person


def litellm(url: str, directory: Path) -> Iterator[tuple[str, Any]]:
    import litellm

    litellm.telemetry, litellm.suppress_debug_info = False, True
    given: dict[str, Any] = {"model": "openai/tiny", "api_base": url, "api_key": "none", **SETTINGS}
    yield "text", litellm.completion(messages=QUESTION, **given).choices[0].message.content
    stream = litellm.completion(messages=QUESTION, stream=True, **given)
    yield "streamed", "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    schema = litellm.completion(messages=QUESTION, response_format=person_type(), **{**given, "max_tokens": 60})
    yield "person", json.loads(schema.choices[0].message.content)
    vectors = litellm.embedding(model="openai/vectors", input=TEXTS, api_base=url, api_key="none")
    yield "vectors", [each["embedding"] for each in vectors.data]
    messages, asked = list(QUESTION), {**given, "max_tokens": 300, "tools": [TOOL]}
    while (said := litellm.completion(messages=messages, **asked).choices[0].message).tool_calls:
        messages.append(said.model_dump(exclude_none=True))
        for call in said.tool_calls:
            result = weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    yield "agent", [messages[-1]["content"], said.content]
    try:
        litellm.completion(messages=QUESTION, **{**given, "model": "openai/none"}, num_retries=0)
    except litellm.NotFoundError as error:
        yield "refused", "does not exist here" in str(error)


def langchain(url: str, directory: Path) -> Iterator[tuple[str, Any]]:
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    def chat(**given: Any) -> Any:
        return ChatOpenAI(model="tiny", base_url=url, api_key="none", **{**SETTINGS, **given})

    yield "text", chat().invoke(TEXT).content
    yield "streamed", "".join(piece.content for piece in chat().stream(TEXT))
    yield "person", chat(max_tokens=60).with_structured_output(person_type()).invoke(TEXT).model_dump()
    vectors = OpenAIEmbeddings(model="vectors", base_url=url, api_key="none", check_embedding_ctx_length=False)
    yield "vectors", vectors.embed_documents(TEXTS)
    model, known = chat(max_tokens=300).bind_tools([weather]), tool(weather)
    messages: list[Any] = [HumanMessage(TEXT)]
    while (said := model.invoke(messages)).tool_calls:
        messages.append(said)
        for call in said.tool_calls:
            messages.append(ToolMessage(known.invoke(call["args"]), tool_call_id=call["id"]))
    yield "agent", [messages[-1].content, said.content]
    yield "responses", chat(use_responses_api=True).invoke(TEXT).text
    try:
        ChatOpenAI(model="none", base_url=url, api_key="none", max_retries=0).invoke(TEXT)
    except Exception as error:
        yield "refused", "does not exist here" in str(error)


def llm(url: str, directory: Path) -> Iterator[tuple[str, Any]]:
    """Simon Willison's command, and its own loop of tools."""
    model = {"model_id": "tiny", "model_name": "tiny", "api_base": url, "supports_tools": True, "supports_schema": True}
    unknown = {"model_id": "unknown", "model_name": "unknown", "api_base": url}
    (directory / "extra-openai-models.yaml").write_text(json.dumps([model, unknown]))  # JSON is YAML
    os.environ["LLM_USER_PATH"] = str(directory)

    def run(*arguments: str, name: str = "tiny", tokens: int = 9) -> subprocess.CompletedProcess[str]:
        options = ["-m", name, "--key", "none", "-o", "temperature", "0", "-o", "max_tokens", str(tokens), "--no-log"]
        command = [str(Path(sys.executable).with_name("llm")), "prompt", TEXT, *options, *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    yield "text", run("--no-stream").stdout.removesuffix("\n")
    yield "streamed", run().stdout.removesuffix("\n")
    yield "person", json.loads(run("--schema", json.dumps(PERSON), tokens=60).stdout)
    import llm as library

    results: list[str] = []
    chain = library.get_model("tiny").chain(
        TEXT, tools=[weather], key="none", options={"temperature": 0, "max_tokens": 300},
        after_call=lambda tool, call, result: results.append(result.output),
    )  # fmt: skip
    text = chain.text()
    yield "agent", [*results, text]
    yield "refused", "does not exist here" in run(name="unknown").stderr


CLIENTS: Mapping[str, Callable[[str, Path], Iterator[tuple[str, Any]]]] = {
    "litellm": litellm, "langchain": langchain, "llm": llm,
}  # fmt: skip

if __name__ == "__main__":
    sys.addaudithook(stay_here)
    print(json.dumps(dict(CLIENTS[sys.argv[1]](sys.argv[2], Path(sys.argv[3])))))
