"""The items of /v1/responses' input as messages: what one turn of the assistant was told in is one message again."""

from __future__ import annotations

from typing import Any

from edgellm.openai.schema import ResponsesRequest
from edgellm.server.failures import Refusal

PARTS = ("input_text", "output_text", "text")
Message = dict[str, Any]


def messages_of(body: ResponsesRequest) -> list[Message]:
    """The conversation as chat templates take it. Raises Refusal."""
    messages: list[Message] = []
    if body.instructions:
        messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        return [*messages, {"role": "user", "content": body.input}]
    for i, item in enumerate(body.input):
        _add(messages, item, f"input[{i}]")
    return messages


def _add(messages: list[Message], item: dict[str, Any], where: str) -> None:
    kind = item.get("type", "message")
    match kind:
        case "function_call":
            _turn(messages, "tool_calls").setdefault("tool_calls", []).append(_call(item, where))
        case "function_call_output":
            output = _text(item.get("output"), f"{where}.output")
            messages.append({"role": "tool", "tool_call_id": _string(item, "call_id", where), "content": output})
        case "reasoning":
            if thought := _thought(item):
                _turn(messages).setdefault("reasoning_content", thought)
        case "message" if isinstance(item.get("role"), str):
            content = _text(item.get("content"), f"{where}.content")
            if item["role"] == "assistant" and _is_begun(messages):
                messages[-1]["content"] = content
            else:
                messages.append({"role": item["role"], "content": content})
        case _:
            raise Refusal(
                400, f"{where} is of type {kind!r}, expected a message, a function's call or output, or reasoning",
                param=where,
            )  # fmt: skip


def _turn(messages: list[Message], within: str = "") -> Message:
    """The assistant's message that an item belongs to: the last one for calls, else a new one."""
    if not within or not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]


def _is_begun(messages: list[Message]) -> bool:
    """Whether the last message has nothing but reasoning yet."""
    last = messages[-1] if messages else {}
    return "reasoning_content" in last and "tool_calls" not in last and not last["content"]


def _call(item: dict[str, Any], where: str) -> dict[str, Any]:
    function = {name: _string(item, name, where) for name in ("name", "arguments")}
    return {"id": _string(item, "call_id", where), "type": "function", "function": function}


def _string(item: dict[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise Refusal(400, f"{where}.{name} is {value!r}, expected a text", param=f"{where}.{name}")
    return value


def _thought(item: dict[str, Any]) -> str:
    """Its text, or a summary of it; "" where there is none, as in what only OpenAI can read."""
    parts = item.get("content") or item.get("summary") or []
    texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "\n".join(text for text in texts if isinstance(text, str))


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") in PARTS]
    if len(texts) < len(parts) or not all(isinstance(text, str) for text in texts):
        raise Refusal(400, f"{where} holds more than text, and this model reads text alone", param=where)
    return "\n".join(map(str, texts))


def functions_of(tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Tools as chats have them. Raises Refusal for others than functions."""
    if not tools:
        return None
    for i, tool in enumerate(tools):
        if tool.get("type") != "function" or not isinstance(tool.get("name"), str):
            raise Refusal(
                400, f"tools[{i}] is of type {tool.get('type')!r}, expected a function with a name: there are no "
                "others here", param=f"tools[{i}]",
            )  # fmt: skip

    def said(tool: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in tool.items() if key != "type" and value is not None}

    return [{"type": "function", "function": said(tool)} for tool in tools]
