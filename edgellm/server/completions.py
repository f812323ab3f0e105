"""/v1/completions: texts or tokens that are continued."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from edgellm.generation.results import Piece
from edgellm.openai.options import completion_options, stops_of, texts_of
from edgellm.openai.schema import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest, TokenLogprob
from edgellm.server.answers import finish_reason, finished, merged, submitted, token_logprob, usage
from edgellm.server.failures import Refusal
from edgellm.server.http import FINGERPRINT, Chunks, Context, answered, identity, streamed
from edgellm.server.stops import StopCut
from edgellm.serving import Answer
from edgellm.text.tokenizer import Tokenizer, no_tokenizer

DEFAULT_TOKENS = 16  # OpenAI's, which its clients count on


@dataclass
class Choice:
    """One of the texts in the making. `start`: what is given back before it. `offset`: where the next token's text
    begins."""

    index: int
    cut: StopCut
    start: str = ""
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.offset = len(self.start)

    def add(self, piece: Piece, tokenizer: Tokenizer) -> str:
        """The text that is new."""
        text, self.start = self.start + self.cut.add(piece.text), ""
        if piece.finish_reason is not None and not self.cut.found:
            text += self.cut.flush()
        self.text += text
        found = token_logprob(piece, tokenizer)
        if found is not None:
            self.logprobs.append(found)
        return text


async def completions(http: HttpRequest, body: CompletionRequest, context: Context) -> Response:
    async with context.pool.use(body.model) as loaded:
        model, engine = loaded.generating()
        if model.tokenizer is None:
            raise no_tokenizer()
        _refuse(body)
        options = {"max_new_tokens": DEFAULT_TOKENS, **context.limits, **completion_options(body)}
        prompts = texts_of(body.prompt, "prompt")
        _check_fits(len(prompts), engine.most_at_once)
        choices = _choices(body, prompts, model.tokenizer)
        answers = await submitted(*(partial(engine.submit, prompt, **options) for prompt in prompts))
        made: dict[str, Any] = {"id": identity("cmpl"), "created": context.now(), "model": loaded.name}
        made |= {"object": "text_completion", "system_fingerprint": FINGERPRINT}
        if body.stream:
            return streamed(Chunks(_chunks(body, answers, choices, model.tokenizer, made), answers, loaded))
        generations = await finished(answers, http)
        for number, answer in enumerate(answers):
            for sequence, piece in answer.numbered():
                choices[number * (body.n or 1) + sequence].add(piece, model.tokenizer)
        reasons = [one.finish_reason for generation in generations for one in generation.sequences]
        done = [
            CompletionChoice(
                index=choice.index,
                text=choice.text,
                logprobs=_logprobs(body, choice),
                finish_reason=finish_reason(reason),
            )
            for choice, reason in zip(choices, reasons, strict=True)
        ]
        return answered(Completion(**made, choices=done, usage=usage(generations)))


def _check_fits(prompts: int, most: int | None) -> None:
    """Raises Refusal where there would never be room: 429 would have a client try for ever."""
    if most is not None and prompts > most:
        raise Refusal(
            400, f"prompt has {prompts} texts, expected at most {most} in a request; send several", param="prompt"
        )


def _refuse(body: CompletionRequest) -> None:
    """Raises Refusal for what is not there."""
    if body.suffix:
        raise Refusal(400, "suffix is not supported; leave it out", param="suffix")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise Refusal(400, f"best_of is {body.best_of}, expected {body.n or 1}, the value of n", param="best_of")


def _choices(body: CompletionRequest, prompts: list[Any], tokenizer: Tokenizer) -> list[Choice]:
    copies = body.n or 1
    texts = [prompt if isinstance(prompt, str) else tokenizer.decode(prompt) for prompt in prompts if body.echo]
    return [
        Choice(i, StopCut(stops_of(body)), texts[i // copies] if body.echo else "")
        for i in range(len(prompts) * copies)
    ]


async def _chunks(
    body: CompletionRequest,
    answers: list[Answer],
    choices: list[Choice],
    tokenizer: Tokenizer,
    made: dict[str, Any],
) -> AsyncIterator[Completion]:
    told = body.stream_options is not None and body.stream_options.include_usage
    extra: dict[str, Any] = {"usage": None} if told else {}
    async for number, sequence, piece in merged(answers):
        choice = choices[number * (body.n or 1) + sequence]
        text = choice.add(piece, tokenizer)
        if text or piece.finish_reason is not None:
            logprobs = _logprobs(body, choice)
            reason = None if piece.finish_reason is None else finish_reason(piece.finish_reason)
            new = CompletionChoice(index=choice.index, text=text, logprobs=logprobs, finish_reason=reason)
            yield Completion(**made, choices=[new], **extra)
    if told:
        yield Completion(**made, choices=[], usage=usage([answer.result() for answer in answers]))


def _logprobs(body: CompletionRequest, choice: Choice) -> CompletionLogprobs | None:
    """Of the tokens since they were last told."""
    if body.logprobs is None:
        return None
    offsets, told, choice.logprobs = [], choice.logprobs, []
    for one in told:
        offsets.append(choice.offset)
        choice.offset += len(one.token)
    return CompletionLogprobs(
        [one.token for one in told],
        [one.logprob for one in told],
        [{top.token: top.logprob for top in one.top_logprobs} for one in told],
        offsets,
    )
