"""/v1/responses: OpenAI's newer address for chats. Nothing is stored: a request holds the whole conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from edgellm.generation.results import Generation
from edgellm.openai.options import chat_arguments, format_options, sampling_options
from edgellm.openai.schema import ResponseEvent, ResponseObject, ResponsesRequest, ResponseUsage
from edgellm.server.answers import finish_reason, finished, merged
from edgellm.server.chat import ask
from edgellm.server.failures import Refusal
from edgellm.server.http import Chunks, Context, answered, identity, streamed
from edgellm.server.items import functions_of, messages_of
from edgellm.server.outputs import Output
from edgellm.server.pool import Loaded
from edgellm.server.telling import Asked, Telling
from edgellm.serving import Answer


async def responses(http: HttpRequest, body: ResponsesRequest, context: Context) -> Response:
    async with context.pool.use(body.model) as loaded:
        _refuse(body)
        answer, asked = await _ask(body, loaded, context)
        made, telling, output = _object(body, loaded, context), Telling(0, asked), Output()
        if body.stream:
            return streamed(Chunks(_events(answer, telling, output, made), [answer], loaded), named=True)
        (generation,) = await finished([answer], http)
        for piece in answer:
            for _ in output.add(telling.add(piece)):
                pass
        _complete(made, generation, telling)
        for _ in output.finish(made):
            pass
        made.output = output.items
        return answered(made)


async def _ask(body: ResponsesRequest, loaded: Loaded, context: Context) -> tuple[Answer, Asked]:
    options = sampling_options(body)
    if body.max_output_tokens is not None:
        options["max_new_tokens"] = body.max_output_tokens
    if body.text is not None and isinstance(body.text.get("format"), dict):
        options |= format_options(body.text["format"], "text.format")
    if body.reasoning_budget is not None:
        options["reasoning_budget"] = body.reasoning_budget
    effort = None if body.reasoning is None else body.reasoning.effort
    chat = chat_arguments(
        functions_of(body.tools), body.tool_choice, body.parallel_tool_calls, body.chat_template_kwargs
    )
    return await ask(loaded, context, messages_of(body), chat, options, effort=effort, streamed=bool(body.stream))


def _refuse(body: ResponsesRequest) -> None:
    """Raises Refusal for what is not there."""
    if body.previous_response_id is not None or body.conversation is not None:
        raise Refusal(
            400, "this server stores nothing: send the whole conversation as input", param="previous_response_id"
        )
    if body.background:
        raise Refusal(400, "background is not supported; leave it out", param="background")


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
        tools=body.tools or [],
        tool_choice=body.tool_choice or "auto",
        parallel_tool_calls=body.parallel_tool_calls is not False,
        reasoning=None if body.reasoning is None else msgspec.to_builtins(body.reasoning),
        metadata=body.metadata or {},
    )


def _complete(made: ResponseObject, generation: Generation, telling: Telling) -> None:
    whole = finish_reason(generation.finish_reason) == "stop"
    made.status = "completed" if whole else "incomplete"
    made.incomplete_details = None if whole else {"reason": "max_output_tokens"}
    read, new = generation.prompt_tokens, len(generation.tokens)
    made.usage = ResponseUsage(
        input_tokens=read,
        output_tokens=new,
        total_tokens=read + new,
        input_tokens_details={"cached_tokens": 0},
        output_tokens_details={"reasoning_tokens": telling.reasoning_tokens},
    )


async def _events(
    answer: Answer, telling: Telling, output: Output, made: ResponseObject
) -> AsyncIterator[ResponseEvent]:
    yield output.event("created", response=made)
    yield output.event("in_progress", response=made)
    async for _, _, piece in merged([answer]):
        for event in output.add(telling.add(piece)):
            yield event
    _complete(made, answer.result(), telling)
    for event in output.finish(made):
        yield event
    made.output = output.items
    yield output.event(made.status, response=made)
