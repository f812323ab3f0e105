"""What passes between the parts of a batch: a line of the input, what it asks for, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgellm.errors import EdgellmError, ProviderError
from edgellm.generation.call import ChatArguments
from edgellm.generation.results import Generation
from edgellm.text.answers import AnswerParts


@dataclass(frozen=True)
class Line:
    """A line or row of the input. `number`: counted from 0. `place`: file and line, for messages. `values`: by column;
    `problem`: why there are none. `size`: how long it is, beside others of the input."""

    number: int
    place: str
    values: Mapping[str, Any]
    size: int
    problem: str = ""


@dataclass(frozen=True)
class Ask:
    """What a line asks for: an answer to each of `inputs`, which are prompts, lists of messages (with `chat`), or texts
    for an encoder. `options`: of this line, on top of the batch's."""

    inputs: Sequence[Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    chat: ChatArguments | None = None


@dataclass(frozen=True)
class Chatted:
    """An answer to messages. `parts`: what each of its sequences says."""

    generation: Generation
    parts: Sequence[AnswerParts]


@dataclass(frozen=True)
class Embedded:
    """A text's vector. `tokens`: how many it has."""

    vector: Sequence[float]
    tokens: int


@dataclass(frozen=True)
class Classified:
    """A text's likeliest label."""

    label: str
    score: float
    tokens: int


@dataclass(frozen=True)
class Outcome:
    """What became of a line: its `answer`, or its `error` as OpenAI writes them, with an HTTP `status`."""

    line: Line
    answer: Mapping[str, Any] | None
    error: Mapping[str, Any] | None = None
    status: int = 200
    prompt_tokens: int = 0
    new_tokens: int = 0


def is_passing(error: Exception) -> bool:
    """Whether the same may succeed when it is tried again: memory that was short, a run that failed; not where the line
    itself, or the package, is at fault."""
    return isinstance(error, ProviderError) or not isinstance(error, EdgellmError)
