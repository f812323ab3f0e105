"""What an answer is told in, and what all of it adds up to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Content:
    """A piece of the text that is for the reader."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """A piece of the text that the model thought in."""

    text: str


@dataclass(frozen=True)
class CallBegun:
    """A call of the tool `name`, the `index`-th of the answer."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class CallArguments:
    """A piece of the JSON text of a call's arguments."""

    index: int
    text: str


Event = Content | Reasoning | CallBegun | CallArguments


@dataclass(frozen=True)
class ToolCall:
    """`arguments`: the JSON text of an object."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class AnswerParts:
    """A whole answer. `content` is "" where there are only calls, `reasoning` where the model did not think."""

    content: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]


def answer_of(events: Iterable[Event]) -> AnswerParts:
    """What all events of an answer add up to."""
    content, reasoning = [], []
    calls: list[CallBegun] = []
    arguments: list[list[str]] = []
    for event in events:
        match event:
            case Content(text):
                content.append(text)
            case Reasoning(text):
                reasoning.append(text)
            case CallBegun():
                calls.append(event)
                arguments.append([])
            case CallArguments(index, text):
                arguments[index].append(text)
    made = (ToolCall(call.id, call.name, "".join(texts)) for call, texts in zip(calls, arguments, strict=True))
    return AnswerParts("".join(content), "".join(reasoning), tuple(made))
