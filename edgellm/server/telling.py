"""One of a chat's answers as it comes: its text up to a stop string, read as content, reasoning and tool calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.generation.results import Piece
from edgellm.openai.schema import FinishReason, Function, Reply, TokenLogprob, ToolCall
from edgellm.server.answers import finish_reason, token_logprob
from edgellm.server.stops import StopCut
from edgellm.text.answers import (
    AnswerFormat,
    AnswerParser,
    CallArguments,
    CallBegun,
    Content,
    Event,
    Reasoning,
    answer_of,
)
from edgellm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Asked:
    """What an answer is read by. `tools`: those that may be called. `prompt`: the end of the text that it is behind."""

    format: AnswerFormat
    tokenizer: Tokenizer
    prompt: str
    tools: Sequence[Any] | None
    streamed: bool
    stops: Sequence[str] = ()
    logprobs: bool = False

    def parser(self) -> AnswerParser:
        return self.format.parser(tools=self.tools, prompt=self.prompt, stream_arguments=self.streamed)


class Telling:
    """The answer with this number."""

    def __init__(self, index: int, asked: Asked) -> None:
        self.index = index
        self._asked = asked
        self._parser = asked.parser()
        self._cut = StopCut(asked.stops)
        self._events: list[Event] = []
        self._new_logprobs: list[TokenLogprob] = []
        self.reasoning_tokens = 0  # as far as texts show them

    def add(self, piece: Piece) -> list[Event]:
        """What is new with a piece."""
        found = token_logprob(piece, self._asked.tokenizer) if self._asked.logprobs else None
        self._new_logprobs += [] if found is None else [found]
        text = self._cut.add(piece.text)
        if piece.finish_reason is not None:
            text += self._cut.flush()
        events = [] if not text else self._parser.add(text)
        events += self._parser.finish() if piece.finish_reason is not None else []
        self._events += events
        self.reasoning_tokens += bool(events) and all(isinstance(event, Reasoning) for event in events)
        return events

    def take_logprobs(self) -> list[TokenLogprob]:
        """Those since they were last taken."""
        found, self._new_logprobs = self._new_logprobs, []
        return found

    def finish_reason(self, reason: str) -> FinishReason:
        found = finish_reason(reason)
        called = any(isinstance(event, CallBegun) for event in self._events)
        return "tool_calls" if called and found == "stop" else found

    def message(self) -> Reply:
        """All of it."""
        parts = answer_of(self._events)
        reply = Reply(role="assistant", content=parts.content or (None if parts.tool_calls else ""), refusal=None)
        if parts.reasoning:
            reply.reasoning_content = parts.reasoning
        if parts.tool_calls:
            reply.tool_calls = [
                ToolCall(id=call.id, type="function", function=Function(call.name, call.arguments))
                for call in parts.tool_calls
            ]
        return reply


def deltas(events: Iterable[Event]) -> list[Reply]:
    """Events as the pieces of a message."""
    return [_delta(event) for event in events]


def _delta(event: Event) -> Reply:
    if isinstance(event, Content):
        return Reply(content=event.text)
    if isinstance(event, CallBegun):
        function = Function(event.name, "")
        return Reply(tool_calls=[ToolCall(index=event.index, id=event.id, type="function", function=function)])
    if isinstance(event, CallArguments):
        return Reply(tool_calls=[ToolCall(index=event.index, function=Function(arguments=event.text))])
    return Reply(reasoning_content=event.text)
