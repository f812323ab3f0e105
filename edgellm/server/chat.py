"""/v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from edgellm.generation.call import ChatArguments, Request
from edgellm.models.decoder import Model
from edgellm.openai.options import chat_arguments, chat_options, effort_variables, plain, stops_of
from edgellm.openai.schema import ChatChoice, ChatChunk, ChatCompletion, ChatDelta, ChatRequest, Logprobs, Reply
from edgellm.server.answers import finished, merged, submitted, usage
from edgellm.server.failures import Refusal
from edgellm.server.http import FINGERPRINT, Chunks, Context, answered, identity, streamed
from edgellm.server.pool import Loaded
from edgellm.server.telling import Asked, Telling, deltas
from edgellm.serving import Answer
from edgellm.text.answers import AnswerFormat
from edgellm.text.prompts import prompt_end
from edgellm.text.tokenizer import no_tokenizer


async def chat_completions(http: HttpRequest, body: ChatRequest, context: Context) -> Response:
    async with context.pool.use(body.model) as loaded:
        answer, asked = await _ask(body, loaded, context)
        tellings = [Telling(i, asked) for i in range(body.n or 1)]
        made: dict[str, Any] = {"id": identity("chatcmpl"), "created": context.now(), "model": loaded.name}
        if body.stream:
            return streamed(Chunks(_chunks(body, answer, tellings, made), [answer], loaded))
        (generation,) = await finished([answer], http)
        for number, piece in answer.numbered():
            tellings[number].add(piece)
        completion = ChatCompletion(
            **made,
            choices=[
                ChatChoice(
                    index=telling.index,
                    message=telling.message(),
                    logprobs=Logprobs(telling.take_logprobs()) if body.logprobs else None,
                    finish_reason=telling.finish_reason(sequence.finish_reason),
                )
                for telling, sequence in zip(tellings, generation.sequences, strict=True)
            ],
            usage=usage([generation]),
            system_fingerprint=FINGERPRINT,
        )
        return answered(completion)


async def _ask(body: ChatRequest, loaded: Loaded, context: Context) -> tuple[Answer, Asked]:
    options = chat_options(body)
    chat = chat_arguments(body.tools, body.tool_choice, body.parallel_tool_calls, body.chat_template_kwargs)
    messages = [plain(message) for message in body.messages]
    given = {"stops": stops_of(body), "logprobs": bool(body.logprobs), "streamed": bool(body.stream)}
    return await ask(loaded, context, messages, chat, options, effort=body.reasoning_effort, **given)


async def ask(
    loaded: Loaded,
    context: Context,
    messages: list[Any],
    chat: ChatArguments,
    options: dict[str, Any],
    *,
    effort: str | None,
    **given: Any,
) -> tuple[Answer, Asked]:
    """`effort`: of reasoning. `given`: fields of `Asked`. Without a limit, an answer may fill the context. Raises
    Refusal or EdgellmError."""
    model, engine = loaded.generating()
    options = {"max_new_tokens": model.info.context_length, **context.limits, **options}
    if not isinstance(model, Model):
        raise Refusal(400, f"the model {loaded.name!r} is not for chats: it is for {loaded.task}", param="model")
    if model.tokenizer is None:
        raise no_tokenizer()
    if effort is not None:
        said = effort_variables(effort, model.chat_template.source(tools=chat.told_tools))
        chat = replace(chat, variables={**said, **(chat.variables or {})})
    form = AnswerFormat.of(model.chat_template.source(tools=chat.told_tools))
    keep = form.parser(tools=chat.told_tools).markers
    (answer,) = await submitted(partial(engine.submit_request, Request([messages], options, chat=chat), keep=keep))
    prompt = prompt_end(answer.prompt, model.tokenizer)
    return answer, Asked(form, model.tokenizer, prompt, chat.told_tools, **given)


async def _chunks(
    body: ChatRequest, answer: Answer, tellings: list[Telling], made: dict[str, Any]
) -> AsyncIterator[ChatChunk]:
    told = body.stream_options is not None and body.stream_options.include_usage

    def chunk(*choices: ChatDelta, **given: Any) -> ChatChunk:
        given = {"usage": None, **given} if told else given
        return ChatChunk(
            **made, object="chat.completion.chunk", choices=list(choices), system_fingerprint=FINGERPRINT, **given
        )

    for telling in tellings:
        yield chunk(ChatDelta(index=telling.index, delta=Reply(role="assistant", content="", refusal=None)))
    async for _, number, piece in merged([answer]):
        telling = tellings[number]
        new = deltas(telling.add(piece))
        logprobs = telling.take_logprobs()
        for i, delta in enumerate(new or [Reply()] * bool(logprobs)):
            yield chunk(
                ChatDelta(index=number, delta=delta, logprobs=Logprobs(logprobs) if logprobs and not i else None)
            )
        if piece.finish_reason is not None:
            yield chunk(
                ChatDelta(index=number, delta=Reply(), finish_reason=telling.finish_reason(piece.finish_reason))
            )
    if told:
        yield chunk(usage=usage([answer.result()]))
