"""From a model's pieces to what OpenAI's answers are made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest

from edgellm.generation.results import Generation, Piece
from edgellm.openai.schema import FinishReason, TokenLogprob, TopLogprob, Usage
from edgellm.serving import Answer
from edgellm.text.tokenizer import Tokenizer

T = TypeVar("T")


class Disconnected(Exception):
    """The client has gone."""


def finish_reason(reason: str) -> FinishReason:
    """Those of answers that were cancelled while somebody waits are of a server that has to end."""
    return "length" if reason in ("length", "time", "cancelled") else "stop"


def usage(generations: Sequence[Generation]) -> Usage:
    """Of the answers to a request's prompts."""
    read = sum(each.prompt_tokens for each in generations)
    new = sum(len(one.tokens) for each in generations for one in each.sequences)
    return Usage(read, new, read + new)


def token_logprob(piece: Piece, tokenizer: Tokenizer) -> TokenLogprob | None:
    """Of the piece's token; None where it has none, or logprobs were not asked for."""
    if not piece.tokens or piece.logprobs is None:
        return None
    tops = [_logprob(token, logprob, tokenizer) for token, logprob in piece.top_logprobs]
    chosen = _logprob(piece.tokens[0], piece.logprobs[0], tokenizer)
    return TokenLogprob(chosen.token, chosen.logprob, chosen.bytes, tops)


def _logprob(token: int, logprob: float, tokenizer: Tokenizer) -> TopLogprob:
    text = tokenizer.decode([token], skip_special_tokens=False)
    return TopLogprob(text, max(logprob, -9999.0), list(text.encode()))


async def submitted(*submits: Callable[[], Answer]) -> list[Answer]:
    """Prompts are tokenized beside the event loop. Where one is refused, those before it are not asked for either."""
    answers: list[Answer] = []
    try:
        for submit in submits:
            answers.append(await asyncio.to_thread(submit))
    except BaseException:
        for answer in answers:
            answer.cancel()
        raise
    return answers


async def finished(answers: Sequence[Answer], http: HttpRequest) -> list[Generation]:
    """The answers to the end. Where the client goes before it, they are cancelled. Raises Disconnected."""
    try:
        return await unless_gone(http, _all(answers))
    finally:
        for answer in answers:
            answer.cancel()


async def unless_gone(http: HttpRequest, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives. Where the client goes before it, it is cancelled. Raises Disconnected."""
    gone: asyncio.Future[None] = asyncio.ensure_future(_disconnect(http))
    waiting = asyncio.ensure_future(work)
    try:
        await asyncio.wait((gone, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise Disconnected
        return waiting.result()
    finally:
        gone.cancel()
        waiting.cancel()


async def merged(answers: Sequence[Answer]) -> AsyncIterator[tuple[int, int, Piece]]:
    """The pieces of several answers as they come: the number of the answer, that of its sequence, and the piece. Closed
    early, it cancels the answers."""
    queue: asyncio.Queue[tuple[int, int, Piece] | BaseException | None] = asyncio.Queue()

    async def listen(number: int, answer: Answer) -> None:
        try:
            async with aclosing(answer.numbered_async()) as pieces:  # type: ignore[type-var]
                async for sequence, piece in pieces:
                    queue.put_nowait((number, sequence, piece))
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    listeners = [asyncio.create_task(listen(number, answer)) for number, answer in enumerate(answers)]
    left = len(answers)
    try:
        while left:
            found = await queue.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                left -= 1
            else:
                yield found
    finally:
        for listener in listeners:
            listener.cancel()
        for answer in answers:
            answer.cancel()


async def _all(answers: Sequence[Answer]) -> list[Generation]:
    return [await answer for answer in answers]


async def _disconnect(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
