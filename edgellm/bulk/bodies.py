"""What the bodies of OpenAI's lines ask for.

Beside OpenAI's fields a body may have this package's generation options by their own names. A field that is neither, or
asks for what is not done here, is an error of its body; fields that only describe the caller are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import msgspec

from edgellm.bulk.lines import Ask
from edgellm.decoding.options import GenerationOptions
from edgellm.errors import FieldError, nearest
from edgellm.openai.options import (
    chat_arguments,
    chat_options,
    completion_options,
    invalid,
    plain,
    texts_of,
)
from edgellm.openai.schema import ChatRequest, CompletionRequest, EmbeddingRequest

B = TypeVar("B", bound=msgspec.Struct)
OWN = frozenset(field.name for field in fields(GenerationOptions)) - {"logprobs", "top_logprobs"}
# Fields that are taken with a value that asks for nothing.
NOT_DONE: Mapping[str, tuple[Any, ...]] = {
    "stream": (False,), "stream_options": (), "logprobs": (False,), "top_logprobs": (0,), "best_of": (1,),
    "echo": (False,), "suffix": ("",),
}  # fmt: skip


def read_chat(body: Mapping[str, Any]) -> Ask:
    """What a body for /v1/chat/completions asks for. Raises FieldError; what is wrong with an option or a message is
    found when the model reads it."""
    given, own = _read(body, ChatRequest, OWN)
    chat = chat_arguments(given.tools, given.tool_choice, given.parallel_tool_calls, given.chat_template_kwargs)
    options = {**chat_options(given, beams="num_beams" in own), **own}
    return Ask([[plain(message) for message in given.messages]], options, chat)


def read_completion(body: Mapping[str, Any]) -> Ask:
    """What a body for /v1/completions asks for: its prompt is a text, token ids, or a list of either."""
    given, own = _read(body, CompletionRequest, OWN)
    return Ask(texts_of(given.prompt, "prompt"), {**completion_options(given, beams="num_beams" in own), **own})


def read_embedding(body: Mapping[str, Any]) -> Ask:
    """What a body for /v1/embeddings asks for: its input is a text, token ids, or a list of either."""
    given, _ = _read(body, EmbeddingRequest, frozenset())
    return Ask(texts_of(given.input, "input"))


READERS: Mapping[str, Callable[[Mapping[str, Any]], Ask]] = {
    "/v1/chat/completions": read_chat,
    "/v1/completions": read_completion,
    "/v1/embeddings": read_embedding,
}


def _read(body: Mapping[str, Any], kind: type[B], own: frozenset[str]) -> tuple[B, dict[str, Any]]:
    """The fields of a body that are OpenAI's, and options by their own names that are not null."""
    theirs = frozenset(kind.__struct_fields__)
    for name, value in body.items():
        if name not in theirs | own:
            raise FieldError(f"unknown field {name!r}; {nearest(name, theirs | own)}", name, "unknown_parameter")
        if name in NOT_DONE and value is not None and value not in NOT_DONE[name]:
            raise FieldError(f"{name} is {value!r}, which is not done here; leave it out", name)
    rest = {name: value for name, value in body.items() if name not in theirs and value is not None}
    known = {name: value for name, value in body.items() if name in theirs and name not in NOT_DONE}
    try:
        return msgspec.convert(known, kind), rest
    except msgspec.ValidationError as error:
        raise invalid(error) from error
