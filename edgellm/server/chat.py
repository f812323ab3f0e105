"""/v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from edgellm.generation.results import Piece
from edgellm.server.answers import finish_reason, finished, merged, submitted, token_logprob, usage
from edgellm.server.failures import Refusal
from edgellm.server.http import Context, answered, identity, streamed
from edgellm.server.options import chat_options, stops_of
from edgellm.server.pool import Loaded
from edgellm.server.schema import ChatChoice, ChatChunk, ChatCompletion, ChatDelta, ChatRequest, Logprobs, Reply
from edgellm.server.stops import StopCut
from edgellm.serving import Answer
from edgellm.text.tokenizer import Tokenizer, no_tokenizer

FINGERPRINT = "edgellm"


@dataclass
class Choice:
    """One of the answers in the making."""

    index: int
    cut: StopCut
    text: str = ""
    logprobs: list[Any] = field(default_factory=list)

    def add(self, piece: Piece) -> str:
        """The text that is new."""
        text = "" if self.cut.found else self.cut.add(piece.text)
        if piece.finish_reason is not None and not self.cut.found:
            text += self.cut.flush()
        self.text += text
        return text


async def chat_completions(http: HttpRequest, body: ChatRequest, context: Context) -> Response:
    async with context.pool.use(body.model) as loaded:
        answer, tokenizer = await _ask(body, loaded, context)
        choices = [Choice(i, StopCut(stops_of(body))) for i in range(body.n or 1)]
        made: dict[str, Any] = {"id": identity("chatcmpl"), "created": context.now(), "model": loaded.name}
        if body.stream:
            chunks = _chunks(body, answer, choices, tokenizer, made)
            return streamed(http, context.holding(loaded, chunks))
        (generation,) = await finished([answer], http)
        for number, piece in answer.numbered():
            _take(choices[number], piece, tokenizer if body.logprobs else None)
        completion = ChatCompletion(
            **made,
            choices=[
                ChatChoice(
                    index=choice.index,
                    message=Reply(role="assistant", content=choice.text, refusal=None),
                    logprobs=Logprobs(choice.logprobs) if body.logprobs else None,
                    finish_reason=finish_reason(sequence.finish_reason),
                )
                for choice, sequence in zip(choices, generation.sequences, strict=True)
            ],
            usage=usage([generation]),
            system_fingerprint=FINGERPRINT,
        )
        return answered(completion)


async def _ask(body: ChatRequest, loaded: Loaded, context: Context) -> tuple[Answer, Tokenizer]:
    model, engine = loaded.generating()
    _refuse(body)
    if model.tokenizer is None:
        raise no_tokenizer()
    messages = [plain(message) for message in body.messages]
    options = chat_options(body, context.settings, model.info.context_length)
    variables = body.chat_template_kwargs
    submit = partial(engine.submit_chat, messages, tools=body.tools, template_variables=variables, **options)
    return await submitted(submit), model.tokenizer


def _refuse(body: ChatRequest) -> None:
    """Raises Refusal for what is not there."""
    if body.response_format is not None and body.response_format.get("type") != "text":
        raise Refusal(400, "response_format is not supported, but for text", param="response_format")
    if body.tool_choice not in (None, "auto") or (body.tools and body.tool_choice == "none"):
        raise Refusal(400, "tool_choice is not supported, but for auto", param="tool_choice")


def plain(message: Any) -> dict[str, Any]:
    """A message as chat templates take it: what is not given is not there."""
    return {name: value for name, value in msgspec.to_builtins(message).items() if value is not None}


async def _chunks(
    body: ChatRequest, answer: Answer, choices: list[Choice], tokenizer: Tokenizer, made: dict[str, Any]
) -> AsyncIterator[ChatChunk]:
    told = body.stream_options is not None and body.stream_options.include_usage

    def chunk(*deltas: ChatDelta, **given: Any) -> ChatChunk:
        given = {"usage": None, **given} if told else given
        return ChatChunk(
            **made, object="chat.completion.chunk", choices=list(deltas), system_fingerprint=FINGERPRINT, **given
        )

    for choice in choices:
        yield chunk(ChatDelta(index=choice.index, delta=Reply(role="assistant", content="", refusal=None)))
    async for _, number, piece in merged([answer]):
        choice = choices[number]
        text = _take(choice, piece, tokenizer if body.logprobs else None)
        logprobs, choice.logprobs = choice.logprobs, []
        if text or logprobs:
            new = Logprobs(logprobs) if logprobs else None
            yield chunk(ChatDelta(index=number, delta=Reply(content=text), logprobs=new))
        if piece.finish_reason is not None:
            yield chunk(ChatDelta(index=number, delta=Reply(), finish_reason=finish_reason(piece.finish_reason)))
    if told:
        yield chunk(usage=usage([answer.result()]))


def _take(choice: Choice, piece: Piece, tokenizer: Tokenizer | None) -> str:
    """The text of a piece that is new; with a tokenizer, its logprobs are kept."""
    text = choice.add(piece)
    found = None if tokenizer is None else token_logprob(piece, tokenizer)
    if found is not None:
        choice.logprobs.append(found)
    return text
