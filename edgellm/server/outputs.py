"""The output items of /v1/responses in the making, and the events of a stream that tell of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from edgellm.openai.schema import (
    FunctionCall,
    ItemStatus,
    OutputItem,
    OutputMessage,
    OutputText,
    ReasoningItem,
    ReasoningText,
    ResponseEvent,
    ResponseObject,
)
from edgellm.server.http import identity
from edgellm.text.answers import CallArguments, CallBegun, Content, Event, Reasoning


class Output:
    """Items one after the other: only the last one grows."""

    def __init__(self) -> None:
        self.items: list[OutputItem] = []
        self._is_open = False
        self._numbers = iter(range(1 << 62))

    def event(self, kind: str, **given: Any) -> ResponseEvent:
        return ResponseEvent(type=f"response.{kind}", sequence_number=next(self._numbers), **given)

    def add(self, events: Iterable[Event]) -> Iterator[ResponseEvent]:
        """What is told of an answer's events."""
        for event in events:
            match event:
                case Content(text):
                    yield from self._grow(OutputMessage, text)
                case Reasoning(text):
                    yield from self._grow(ReasoningItem, text)
                case CallBegun():
                    yield from self._begin(FunctionCall(id=identity("fc"), call_id=event.id, name=event.name))
                case CallArguments(_, text):
                    call = self.items[-1]
                    assert isinstance(call, FunctionCall)
                    call.arguments += text
                    yield self.event("function_call_arguments.delta", **self._place(), delta=text)

    def finish(self, made: ResponseObject) -> Iterator[ResponseEvent]:
        """The end of it, which `made` knows the status of; an answer without anything has an empty text."""
        if not self.items:
            yield from self._grow(OutputMessage, "")
        yield from self._end("completed" if made.status == "completed" else "incomplete")

    def _grow(self, kind: type[OutputMessage | ReasoningItem], text: str) -> Iterator[ResponseEvent]:
        if not (self._is_open and isinstance(self.items[-1], kind)):
            yield from self._begin(kind(id=identity("msg" if kind is OutputMessage else "rs")))
            part: Any = OutputText(text="") if kind is OutputMessage else ReasoningText(text="")
            yield self.event("content_part.added", **self._place(), content_index=0, part=part)
            self.items[-1].content.append(part)  # type: ignore[union-attr]
        item = self.items[-1]
        assert not isinstance(item, FunctionCall)
        item.content[0].text += text
        if text:
            logprobs: Any = {"logprobs": []} if kind is OutputMessage else {}
            yield self.event(f"{_kind(item)}.delta", **self._place(), content_index=0, delta=text, **logprobs)

    def _begin(self, item: OutputItem) -> Iterator[ResponseEvent]:
        yield from self._end("completed")
        self.items.append(item)
        self._is_open = True
        yield self.event("output_item.added", output_index=len(self.items) - 1, item=item)

    def _end(self, status: ItemStatus) -> Iterator[ResponseEvent]:
        if not self._is_open:
            return
        item = self.items[-1]
        if isinstance(item, FunctionCall):
            yield self.event("function_call_arguments.done", **self._place(), name=item.name, arguments=item.arguments)
        else:
            text, where = item.content[0].text, {**self._place(), "content_index": 0}
            logprobs: Any = {"logprobs": []} if isinstance(item, OutputMessage) else {}
            yield self.event(f"{_kind(item)}.done", **where, text=text, **logprobs)
            yield self.event("content_part.done", **where, part=item.content[0])
        item.status, self._is_open = status, False
        yield self.event("output_item.done", output_index=len(self.items) - 1, item=item)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.items[-1].id, "output_index": len(self.items) - 1}


def _kind(item: OutputMessage | ReasoningItem) -> str:
    return "output_text" if isinstance(item, OutputMessage) else "reasoning_text"
