"""A model for asyncio programs.

async with AsyncModel(edgellm.load("smollm2-int8")) as model:
    answers = await asyncio.gather(*(model.generate(prompt) for prompt in prompts))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

from edgellm.generation.results import Generation, Piece
from edgellm.models.generative import GenerativeModel
from edgellm.serving.answer import Answer
from edgellm.serving.engine import Engine
from edgellm.text.messages import Message
from edgellm.text.prompts import Prompt
from edgellm.text.tools import Tool


class AsyncModel:
    """The calls of a model as coroutines, over an `Engine`, which they share. A coroutine that is cancelled, and an
    iterator that is closed, end their request. `limits` are the engine's."""

    def __init__(self, model: GenerativeModel[Any], **limits: Any) -> None:
        self.engine = Engine(model, **limits)

    async def generate(self, prompt: Prompt, **options: Any) -> Generation:
        """As `Model.generate` for one prompt."""
        return await _result(await asyncio.to_thread(self.engine.submit, prompt, **options))

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        template: str | None = None,
        template_variables: dict[str, Any] | None = None,
        tool_choice: Any = None,
        parallel_tool_calls: bool = True,
        **options: Any,
    ) -> Generation:
        """As `Model.chat`."""
        given: dict[str, Any] = {"tools": tools, "template": template, "template_variables": template_variables}
        given |= {"tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
        return await _result(await asyncio.to_thread(self.engine.submit_chat, messages, **given, **options))

    def stream(self, prompt: Prompt, **options: Any) -> PieceStream:
        """As `Model.stream`."""
        return PieceStream(self.engine.submit(prompt, **options))

    def stream_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        template: str | None = None,
        template_variables: dict[str, Any] | None = None,
        tool_choice: Any = None,
        parallel_tool_calls: bool = True,
        **options: Any,
    ) -> PieceStream:
        """As `Model.stream_chat`."""
        given: dict[str, Any] = {"tools": tools, "template": template, "template_variables": template_variables}
        given |= {"tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
        return PieceStream(self.engine.submit_chat(messages, **given, **options))

    async def close(self, *, finish: bool = True) -> None:
        """As `Engine.close`."""
        await asyncio.to_thread(self.engine.close, finish=finish)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(finish=kind is None)


async def _result(answer: Answer) -> Generation:
    try:
        return await answer
    finally:
        answer.cancel()


class PieceStream(AsyncIterator[Piece]):
    """An answer's pieces. Closed, dropped, or left in the middle by a task that is cancelled, it ends the request."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._pieces = aiter(answer)  # raises what cannot be streamed

    async def __anext__(self) -> Piece:
        try:
            return await anext(self._pieces)
        except BaseException:
            self._answer.cancel()
            raise

    async def aclose(self) -> None:
        self._answer.cancel()

    def __del__(self) -> None:
        self._answer.cancel()
