"""OpenAI's request bodies as this package's options, and its answers and errors as OpenAI's response bodies.

Beside OpenAI's fields a body may have this package's generation options by their own names. A field that is neither, or
asks for what is not done here, is an error of its body; fields that only describe the caller are passed over.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from edgellm.bulk.lines import Ask, Chatted, Embedded
from edgellm.decoding.options import SAMPLING_ONLY, GenerationOptions
from edgellm.errors import ContextOverflowError, EdgellmError, InputError, OptionError, nearest
from edgellm.generation.call import ChatArguments
from edgellm.generation.results import GeneratedSequence, Generation
from edgellm.serving.text_format import text_format
from edgellm.text.answers import AnswerParts, ToolChoice

OWN = frozenset(field.name for field in fields(GenerationOptions)) - {"logprobs", "top_logprobs"}
PASSED_OVER = {"model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
SAMPLING = {"max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "seed", "stop"}
CHAT = SAMPLING | {
    "messages", "tools", "tool_choice", "parallel_tool_calls", "chat_template_kwargs", "response_format",
}  # fmt: skip
COMPLETION = SAMPLING | {"prompt", "response_format"}
EMBEDDING = {"input", "encoding_format", "dimensions"}
# Fields of OpenAI's that are taken with a value that asks for nothing.
NOT_DONE: Mapping[str, tuple[Any, ...]] = {
    "stream": (False,),
    "stream_options": (),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}
FINISH = {"length": "length", "time": "length", "cancelled": "length"}  # others are "stop"


class FieldError(InputError):
    """A field of a line is not what it may be. `param`: its name."""

    def __init__(self, message: str, param: str, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


def read_chat(body: Mapping[str, Any]) -> Ask:
    """What a body for /v1/chat/completions asks for. Raises FieldError; what is wrong with an option or a message is
    found when the model reads it."""
    given = _given(body, CHAT | OWN)
    variables = given.get("chat_template_kwargs", {})
    if not isinstance(variables, Mapping):
        raise FieldError(f"chat_template_kwargs is {variables!r}, expected an object", "chat_template_kwargs")
    chat = ChatArguments(
        given.get("tools"),
        variables=variables,
        tool_choice=given.get("tool_choice"),
        parallel_tool_calls=given.get("parallel_tool_calls", True) is not False,
    )
    try:
        ToolChoice.read(chat.tools, chat.tool_choice)
    except OptionError as error:
        raise FieldError(str(error), "tool_choice") from error
    return Ask([_required(given, "messages")], generation_options(given), chat)


def read_completion(body: Mapping[str, Any]) -> Ask:
    """What a body for /v1/completions asks for: its prompt is a text, token ids, or a list of either."""
    given = _given(body, COMPLETION | OWN)
    return Ask(_several(_required(given, "prompt"), "prompt"), generation_options(given))


def read_embedding(body: Mapping[str, Any]) -> Ask:
    """What a body for /v1/embeddings asks for: its input is a text, token ids, or a list of either."""
    given = _given(body, EMBEDDING)
    encoding = given.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise FieldError(f"encoding_format is {encoding!r}, expected 'float' or 'base64'", "encoding_format")
    return Ask(_several(_required(given, "input"), "input"))


def generation_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the fields of a body are. A temperature of 0 is greedy search, as there; one above, `top_p` and
    `n` sample."""
    options = {name: value for name, value in given.items() if name in OWN and name not in SAMPLING}
    renamed = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens", "stop": "stop"}
    kept = {"n": "num_return_sequences", "seed": "seed", "temperature": "temperature", "top_p": "top_p"}
    options.update({name: given[field] for field, name in {**renamed, **kept}.items() if field in given})
    if "response_format" in given:
        options |= text_format(given["response_format"])
    several = given.get("n", 1) != 1
    if given.get("temperature") == 0:
        if several and "num_beams" not in options:
            raise FieldError(f"n is {given['n']} with a temperature of 0, where all would be the same; raise it", "n")
        options = {name: value for name, value in options.items() if name not in SAMPLING_ONLY}
        options.setdefault("do_sample", False)
    elif "temperature" in given or given.get("top_p", 1) != 1 or (several and "num_beams" not in options):
        options.setdefault("do_sample", True)
    return options


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


def _given(body: Mapping[str, Any], known: set[str] | frozenset[str]) -> dict[str, Any]:
    """The fields of a body that are not null. Raises FieldError for others than are known."""
    given = {name: value for name, value in body.items() if value is not None and name not in PASSED_OVER}
    for name, value in given.items():
        if name in known:
            continue
        if name not in NOT_DONE:
            raise FieldError(f"unknown field {name!r}; {nearest(name, known)}", name, "unknown_parameter")
        if value not in NOT_DONE[name]:
            raise FieldError(f"{name} is {value!r}, which is not done here; leave it out", name)
    return {name: value for name, value in given.items() if name in known}


def _required(given: Mapping[str, Any], name: str) -> Any:
    if name not in given:
        raise FieldError(f"the body has no {name!r}", name, "missing_required_parameter")
    return given[name]


def _several(value: Any, name: str) -> list[Any]:
    """The texts, or lists of token ids, of a field that may have one of them or a list."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise FieldError(f"{name} is {value!r}, expected a text, token ids, or a list of either", name)
    return value if isinstance(value[0], str | list) else [value]


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
