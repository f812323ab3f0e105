"""Answers and errors as OpenAI's response bodies."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgellm.bulk.lines import Chatted, Embedded
from edgellm.decoding.options import SAMPLING_ONLY
from edgellm.errors import ContextOverflowError, EdgellmError, FieldError, InputError, OptionError
from edgellm.generation.results import GeneratedSequence, Generation
from edgellm.text.answers import AnswerParts

FINISH = {"length": "length", "time": "length", "cancelled": "length"}  # others are "stop"


def merged(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Options of one request on top of those of all: what these say of sampling and of length ends where it chooses for
    itself."""
    dropped = set(SAMPLING_ONLY) if own.get("do_sample") is False else set()
    dropped |= {"max_length"} if "max_new_tokens" in own else {"max_new_tokens"} if "max_length" in own else set()
    return {**{name: value for name, value in defaults.items() if name not in dropped}, **own}


@dataclass(frozen=True)
class Label:
    """What a response says of itself. `model`: the name that the request gave, or the package's. `created`: seconds
    since 1970."""

    id: str
    model: str
    created: int

    def to_dict(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def chat_completion(label: Label, chatted: Chatted) -> dict[str, Any]:
    choices = [
        {"index": index, "message": _message(parts), "logprobs": None, "finish_reason": _reason(sequence, parts)}
        for index, (sequence, parts) in enumerate(zip(chatted.generation.sequences, chatted.parts, strict=True))
    ]
    return {**label.to_dict("chat.completion"), "choices": choices, "usage": usage([chatted.generation])}


def _message(parts: AnswerParts) -> dict[str, Any]:
    content = parts.content or (None if parts.tool_calls else "")
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if parts.reasoning:
        message["reasoning_content"] = parts.reasoning
    if parts.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in parts.tool_calls
        ]
    return message


def _reason(sequence: GeneratedSequence, parts: AnswerParts) -> str:
    found = FINISH.get(sequence.finish_reason, "stop")
    return "tool_calls" if parts.tool_calls and found == "stop" else found


def text_completion(label: Label, generations: Sequence[Generation], stops: Sequence[str] = ()) -> dict[str, Any]:
    """One response for the answers to all prompts of a request."""
    sequences = [sequence for generation in generations for sequence in generation.sequences]
    choices = [
        {
            "index": index,
            "text": without_stop(sequence, stops),
            "logprobs": None,
            "finish_reason": FINISH.get(sequence.finish_reason, "stop"),
        }
        for index, sequence in enumerate(sequences)
    ]
    return {**label.to_dict("text_completion"), "choices": choices, "usage": usage(generations)}


def embedding_list(body: Mapping[str, Any], model: str, embedded: Sequence[Embedded]) -> dict[str, Any]:
    """Raises FieldError where the body asks for vectors of another size."""
    size = len(embedded[0].vector)
    if body.get("dimensions") not in (None, size):
        raise FieldError(f"dimensions is {body['dimensions']!r}, and this model's vectors have {size}", "dimensions")
    shown: Callable[[Sequence[float]], Any] = _base64 if body.get("encoding_format") == "base64" else list
    data = [{"object": "embedding", "index": i, "embedding": shown(one.vector)} for i, one in enumerate(embedded)]
    tokens = sum(one.tokens for one in embedded)
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def usage(generations: Sequence[Generation]) -> dict[str, int]:
    read = sum(generation.prompt_tokens for generation in generations)
    new = sum(len(sequence.tokens) for generation in generations for sequence in generation.sequences)
    return {"prompt_tokens": read, "completion_tokens": new, "total_tokens": read + new}


def without_stop(sequence: GeneratedSequence, stops: Sequence[str], text: str | None = None) -> str:
    """The text before the stop string that ended it. `text`: the sequence's, with more special tokens in it."""
    text = sequence.text if text is None else text
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places and sequence.finish_reason == "stop_string" else text


def described(error: Exception) -> tuple[int, dict[str, Any]]:
    """The HTTP status of an error, and OpenAI's object for it."""
    own = isinstance(error, InputError | OptionError)
    code = getattr(error, "code", None) or ("context_length_exceeded" * isinstance(error, ContextOverflowError) or None)
    content = {
        "message": str(error) if isinstance(error, EdgellmError) else f"unexpected {type(error).__name__}: {error}",
        "type": "invalid_request_error" if own else "server_error",
        "param": getattr(error, "param", None),
        "code": code,
    }
    return 400 if own else 503 if isinstance(error, MemoryError) else 500, content


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
