"""What models and sessions have in common: a reader of requests, and an engine for the time of a call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from edgellm.decoding import Decoder
from edgellm.errors import InputError
from edgellm.generation.call import Call, Cancel, ChatArguments, Request
from edgellm.generation.reader import PromptReader, Reader
from edgellm.generation.results import Generation, Piece
from edgellm.generation.run import Run
from edgellm.text.messages import Message
from edgellm.text.prompts import Prompt, is_single
from edgellm.text.tools import Tool
from edgellm.types import ProgressHook


class Generating(ABC):
    """The road from a request to its results."""

    _reader: Reader

    @abstractmethod
    def _engine_for(self, call: Call) -> AbstractContextManager[Decoder]:
        """An engine that no other call uses meanwhile."""

    def _generations(self, request: Request) -> list[Generation]:
        call = self._reader.call(request)
        with self._engine_for(call) as engine:
            return Run(call, engine).generations()

    def _stream(self, request: Request) -> Iterator[Piece]:
        """The pieces of a request with one prompt. It is read now, and run when the first piece is asked for."""
        call = self._reader.call(request)
        call.check_streamable()
        return self._pieces(call)

    def _pieces(self, call: Call) -> Iterator[Piece]:
        with self._engine_for(call) as engine:
            yield from Run(call, engine).pieces()


class Conversing(Generating):
    """The calls with one prompt, or one chat, of decoder-only models and their sessions."""

    _reader: PromptReader
    _one_at_a_time: ClassVar[str]  # what a list of prompts is told

    def stream(
        self, prompt: Prompt, *, cancel: Cancel | None = None, progress: ProgressHook | None = None, **options: Any
    ) -> Iterator[Piece]:
        """Like `generate` for one prompt and one sequence, a piece per token. Closing the iterator stops it."""
        return self._stream(Request([self._single(prompt)], options, cancel, progress))

    def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        template: str | None = None,
        template_variables: dict[str, Any] | None = None,
        tool_choice: Any = None,
        parallel_tool_calls: bool = True,
        cancel: Cancel | None = None,
        progress: ProgressHook | None = None,
        **options: Any,
    ) -> Generation:
        """The assistant's answer to `messages`, all of them: a list like [{"role": "user", "content": "Hi"}].

        tool_choice: "auto", "none", "required", or OpenAI's object that names a tool. Forced calls, and those of tools
        that are `strict`, have arguments that their schemas allow. parallel_tool_calls: False: one call at most.
        """
        arguments = ChatArguments(tools, template, template_variables, tool_choice, parallel_tool_calls)
        return self._generations(Request([messages], options, cancel, progress, chat=arguments))[0]

    def stream_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        template: str | None = None,
        template_variables: dict[str, Any] | None = None,
        tool_choice: Any = None,
        parallel_tool_calls: bool = True,
        cancel: Cancel | None = None,
        progress: ProgressHook | None = None,
        **options: Any,
    ) -> Iterator[Piece]:
        """`chat`, a piece per token."""
        arguments = ChatArguments(tools, template, template_variables, tool_choice, parallel_tool_calls)
        return self._stream(Request([messages], options, cancel, progress, chat=arguments))

    def _single(self, prompt: Prompt) -> Prompt:
        """Raises InputError for a list of prompts."""
        if not is_single(prompt):
            raise InputError(self._one_at_a_time)
        return prompt
