"""/v1/responses: OpenAI's newer address for chats. Nothing is stored: a request holds the whole conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from edgellm.generation.results import Generation
from edgellm.server.answers import finish_reason, finished, merged, submitted
from edgellm.server.failures import Refusal
from edgellm.server.http import Chunks, Context, answered, identity, streamed
from edgellm.server.options import format_options, sampling_options
from edgellm.server.pool import Loaded
from edgellm.server.schema import (
    OutputMessage,
    OutputText,
    ResponseEvent,
    ResponseObject,
    ResponsesRequest,
    ResponseUsage,
)
from edgellm.serving import Answer

PARTS = ("input_text", "output_text", "text")


async def responses(http: HttpRequest, body: ResponsesRequest, context: Context) -> Response:
    async with context.pool.use(body.model) as loaded:
        _refuse(body)
        answer = await _ask(body, loaded, context)
        made = _object(body, loaded, context)
        if body.stream:
            return streamed(Chunks(_events(answer, made), [answer], loaded), named=True)
        (generation,) = await finished([answer], http)
        return answered(_completed(made, generation, identity("msg")))


def messages_of(body: ResponsesRequest) -> list[dict[str, Any]]:
    """The conversation as chat templates take it. Raises Refusal."""
    said = [{"role": "system", "content": body.instructions}] if body.instructions else []
    if isinstance(body.input, str):
        return [*said, {"role": "user", "content": body.input}]
    return [*said, *(_message(item, f"input[{i}]") for i, item in enumerate(body.input))]


def _message(item: dict[str, Any], where: str) -> dict[str, Any]:
    kind = item.get("type", "message")
    if kind == "function_call":
        call = {"name": item.get("name"), "arguments": item.get("arguments")}
        calls = [{"id": item.get("call_id"), "type": "function", "function": call}]
        return {"role": "assistant", "content": "", "tool_calls": calls}
    if kind == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}
    if kind != "message" or not isinstance(item.get("role"), str):
        raise Refusal(
            400, f"{where} is of type {kind!r}, expected a message or a function's call or output", param=where
        )
    return {"role": item["role"], "content": _text(item.get("content"), where)}


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") in PARTS]
    if len(texts) < len(parts) or not all(isinstance(text, str) for text in texts):
        raise Refusal(400, f"{where}.content holds more than text, and this model reads text alone", param=where)
    return "\n".join(map(str, texts))


async def _ask(body: ResponsesRequest, loaded: Loaded, context: Context) -> Answer:
    model, engine = loaded.generating()
    options = sampling_options(body, context.settings)
    options["max_new_tokens"] = body.max_output_tokens or model.info.context_length
    if body.text is not None and isinstance(body.text.get("format"), dict):
        options |= format_options(body.text["format"], "text.format")
    (answer,) = await submitted(partial(engine.submit_chat, messages_of(body), **options))
    return answer


def _refuse(body: ResponsesRequest) -> None:
    """Raises Refusal for what is not there."""
    if body.previous_response_id is not None or body.conversation is not None:
        raise Refusal(
            400, "this server stores nothing: send the whole conversation as input", param="previous_response_id"
        )
    if body.background:
        raise Refusal(400, "background is not supported; leave it out", param="background")
    if body.tools:
        raise Refusal(400, "tools are not supported here; use /v1/chat/completions", param="tools")


def _object(body: ResponsesRequest, loaded: Loaded, context: Context) -> ResponseObject:
    """Before anything of the answer is there."""
    return ResponseObject(
        id=identity("resp"),
        created_at=context.now(),
        status="in_progress",
        model=loaded.name,
        output=[],
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        metadata=body.metadata or {},
    )


def _completed(made: ResponseObject, generation: Generation, message: str) -> ResponseObject:
    whole = finish_reason(generation.finish_reason) == "stop"
    made.status = "completed" if whole else "incomplete"
    made.output = [_output(message, generation.text, made.status)]
    made.incomplete_details = None if whole else {"reason": "max_output_tokens"}
    read, new = generation.prompt_tokens, len(generation.tokens)
    made.usage = ResponseUsage(
        input_tokens=read,
        output_tokens=new,
        total_tokens=read + new,
        input_tokens_details={"cached_tokens": 0},
        output_tokens_details={"reasoning_tokens": 0},
    )
    return made


def _output(message: str, text: str | None, status: Any) -> OutputMessage:
    content = [] if text is None else [OutputText(text=text)]
    return OutputMessage(id=message, status=status, content=content)


async def _events(answer: Answer, made: ResponseObject) -> AsyncIterator[ResponseEvent]:
    message, numbers = identity("msg"), iter(range(1 << 62))
    where: dict[str, Any] = {"item_id": message, "output_index": 0, "content_index": 0}

    def event(kind: str, **given: Any) -> ResponseEvent:
        return ResponseEvent(type=f"response.{kind}", sequence_number=next(numbers), **given)

    def begin() -> Iterator[ResponseEvent]:
        yield event("created", response=made)
        yield event("in_progress", response=made)
        yield event("output_item.added", output_index=0, item=_output(message, None, "in_progress"))
        yield event("content_part.added", **where, part=OutputText(text=""))

    for one in begin():
        yield one
    text = ""
    async for _, _, piece in merged([answer]):
        text += piece.text
        if piece.text:
            yield event("output_text.delta", **where, delta=piece.text)
    yield event("output_text.done", **where, text=text)
    yield event("content_part.done", **where, part=OutputText(text=text))
    done = _completed(made, answer.result(), message)
    yield event("output_item.done", output_index=0, item=_output(message, text, done.status))
    yield event(done.status, response=done)
