"""The messages of a chat: what is one, and the texts that its content is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.errors import ChatTemplateError, InputError
from edgellm.text.tokenizer import check_text

Message = Mapping[str, Any]

MARK = "|the message goes on here| "
REASONING = ("reasoning_content", "thinking", "reasoning")  # names of a message's reasoning; templates read the first
OTHER_PARTS = ("image", "image_url", "video", "video_url", "audio", "audio_url", "input_audio", "input_image", "file")


def check_messages(messages: object) -> None:
    """Raises InputError unless `messages` is a non-empty sequence of {"role": str, "content": ...} mappings, whose
    content is text, in one piece or in parts."""
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        found = type(messages).__name__
        raise InputError(f'messages must be a list like [{{"role": "user", "content": "Hi"}}], found {found}')
    if not messages:
        raise InputError("messages is empty, expected at least one")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InputError(f"messages[{i}] is {message!r}, expected an object with the text 'role' and a 'content'")
        if "content" not in message and "tool_calls" not in message:
            raise InputError(
                f"messages[{i}] has neither 'content' nor 'tool_calls', only {', '.join(map(str, message))}"
            )
        _check_content(message.get("content"), f"messages[{i}].content")


def _check_content(content: Any, where: str) -> None:
    if isinstance(content, str):
        check_text(content)
    for i, part in enumerate(content if isinstance(content, list | tuple) else ()):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in OTHER_PARTS:
            raise InputError(f"{where}[{i}] is a part of type {kind!r}, and this model reads text alone; leave it out")
        if _is_text(part):
            check_text(part["text"])


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)


def text_parts(message: Message) -> Sequence[Mapping[str, Any]]:
    """The parts of a message's content, where it is in parts and all of them are texts; else none."""
    content = message.get("content")
    return content if isinstance(content, list | tuple) and all(map(_is_text, content)) else ()


def joined(messages: Sequence[Message]) -> list[Message]:
    """The messages with content in one piece, a line for each part."""
    return [
        {**message, "content": "\n".join(part["text"] for part in parts)} if (parts := text_parts(message)) else message
        for message in messages
    ]


def plain_texts(messages: Sequence[Message]) -> list[str]:
    """The contents in one piece, without those that are blank."""
    contents = (message.get("content") for message in messages)
    return [content for content in contents if isinstance(content, str) and content.strip()]


def apart(messages: Sequence[Message]) -> list[Message]:
    """The messages with each content in one piece as the only part."""
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message.get("content"), str)
        else message
        for message in messages
    ]


def as_templates_read(messages: Sequence[Message]) -> list[Message]:
    """The messages without what is None, and with reasoning under each of its names, as transformers 5 hands them to
    templates."""
    return [_with_reasoning({k: v for k, v in message.items() if v is not None}) for message in messages]


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    found = next((message[name] for name in REASONING if name in message), None)
    return message if found is None else {"thinking": found, **message, "reasoning_content": found}


def with_objects(messages: Sequence[Message]) -> tuple[list[Message], list[dict[str, Any]]]:
    """The messages with arguments of tool calls as objects where they are JSON in a text, and these objects."""
    found: list[dict[str, Any]] = []
    return [_with_objects(message, found) for message in messages], found


def _with_objects(message: Message, found: list[dict[str, Any]]) -> Message:
    calls = message.get("tool_calls")
    if not isinstance(calls, list | tuple):
        return message
    return {**message, "tool_calls": [_call_with_object(call, found) for call in calls]}


def _call_with_object(call: Any, found: list[dict[str, Any]]) -> Any:
    if not isinstance(call, Mapping):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _call_with_object(call["function"], found)}
    try:
        arguments = json.loads(call["arguments"]) if isinstance(call.get("arguments"), str) else None
    except (ValueError, RecursionError):  # no JSON: the template gets the text
        arguments = None
    if not isinstance(arguments, dict):
        return call
    found.append(arguments)
    return {**call, "arguments": arguments}


def marked(messages: Sequence[Message], name: str, template: str) -> tuple[list[Message], str]:
    """The messages with MARK at the end of the last one's text `name`, and that text. Raises InputError, or
    ChatTemplateError where the template does not read it."""
    *earlier, last = messages
    content = last.get(name)
    copies = [key for key in (REASONING if name in REASONING else (name,)) if last.get(key) == content]
    if not any(key in template for key in copies):
        raise ChatTemplateError(f"the chat template does not mention {name!r}, so it cannot be continued")
    found = lengthened(content, MARK)
    if found is None:
        raise InputError("there is no text in the last message to continue; leave continue_final_message out")
    longer, final = found
    return [*earlier, {**last, **dict.fromkeys(copies, longer)}], final


def lengthened(content: Any, more: str) -> tuple[Any, str] | None:
    """A message's content with more at the end of its last text, and that text as it was; None where it has none."""
    if isinstance(content, str):
        return content + more, content
    parts = list(content) if isinstance(content, Sequence) else []
    texts = [i for i, part in enumerate(parts) if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
    if not texts:
        return None
    final = parts[texts[-1]]["text"]
    parts[texts[-1]] = {**parts[texts[-1]], "text": final + more}
    return parts, final


def cut_at_mark(text: str, final: str) -> str:
    """The text before MARK, behind the last message's text `final`. Templates that strip messages take the mark's last
    space with them; the spaces before the mark are then those that they would have stripped."""
    before, mark, after = text.rpartition(MARK.strip())
    if not mark or final.strip() not in before:
        raise ChatTemplateError("the chat template leaves the end of the last message out, so it cannot be continued")
    return before if after.startswith(MARK[-1]) else before.rstrip()
