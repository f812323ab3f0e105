"""What a request's fields mean: as options of `generate`, as tools, and as prompts. What has no meaning is a
FieldError."""

from __future__ import annotations

from typing import Any

import msgspec

from edgellm.errors import FieldError, OptionError
from edgellm.generation.call import ChatArguments
from edgellm.openai.schema import ChatRequest, CompletionRequest, Generating, ResponsesRequest, Texts
from edgellm.serving.text_format import text_format
from edgellm.text.answers import ToolChoice

SAME = (
    "seed", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias"
)  # fmt: skip
MOST_TEXTS = 2048  # of a request, as OpenAI has it
CONSTRAINTS = ("json_schema", "regex", "grammar", "choices")
SAMPLING = ("top_p", "top_k", "min_p")


def invalid(error: msgspec.ValidationError) -> FieldError:
    """msgspec's message ends with the place: ... - at `$.messages[0].role`"""
    _, _, place = str(error).partition(" - at `$.")
    return FieldError(str(error), place.rstrip("`") or None, "invalid_request")


def sampling_options(body: Generating | ResponsesRequest, *, beams: bool = False) -> dict[str, Any]:
    """A temperature of 0 is greedy search, any other number for sampling samples; without them the package's
    generation_config.json decides. `beams`: several answers are those of beams."""
    sampling = {name: value for name in SAMPLING if (value := getattr(body, name, None)) is not None}
    options: dict[str, Any] = {}
    if body.temperature == 0:
        options["do_sample"] = False
    elif body.temperature is not None or sampling or ((getattr(body, "n", None) or 1) > 1 and not beams):
        options |= {"do_sample": True, **sampling}
        if body.temperature is not None:
            options["temperature"] = body.temperature
    return options


def options_of(body: Generating, *, beams: bool = False) -> dict[str, Any]:
    options = sampling_options(body, beams=beams)
    options |= {name: value for name in (*SAME, *CONSTRAINTS) if (value := getattr(body, name)) is not None}
    if options.get("seed") is not None:
        options["seed"] %= 1 << 63  # OpenAI's are signed
    if body.n is not None and body.n > 1:
        options["num_return_sequences"] = body.n
    if stops := stops_of(body):
        options["stop"] = stops
    if body.max_tokens is not None:
        options["max_new_tokens"] = body.max_tokens
    if body.response_format is not None:
        options |= format_options(body.response_format, "response_format")
    return options


def chat_options(body: ChatRequest, *, beams: bool = False) -> dict[str, Any]:
    options = options_of(body, beams=beams)
    if body.max_completion_tokens is not None:
        options["max_new_tokens"] = body.max_completion_tokens
    if body.logprobs:
        options |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    if body.reasoning_budget is not None:
        options["reasoning_budget"] = body.reasoning_budget
    return options


def completion_options(body: CompletionRequest, *, beams: bool = False) -> dict[str, Any]:
    options = options_of(body, beams=beams)
    if body.logprobs is not None:
        options |= {"logprobs": True, "top_logprobs": body.logprobs}
    return options


def format_options(given: Any, param: str) -> dict[str, Any]:
    """What the text has to be."""
    try:
        return text_format(given, param)
    except OptionError as error:
        raise FieldError(str(error), param) from error


def chat_arguments(
    tools: list[Any] | None, choice: Any, parallel: bool | None, variables: dict[str, Any] | None
) -> ChatArguments:
    try:
        ToolChoice.read(tools, choice)
    except OptionError as error:
        raise FieldError(str(error), "tool_choice") from error
    return ChatArguments(tools, variables=variables, tool_choice=choice, parallel_tool_calls=parallel is not False)


def effort_variables(effort: str, template: str) -> dict[str, Any]:
    """What a chat template is told of how much to reason, where it asks: for a word, or whether to at all."""
    if "reasoning_effort" in template:
        return {"reasoning_effort": effort}
    return {"enable_thinking": effort != "none"} if "enable_thinking" in template else {}


def plain(message: Any) -> dict[str, Any]:
    """A message as chat templates take it: what is not given is not there."""
    return {name: value for name, value in msgspec.to_builtins(message).items() if value is not None}


def texts_of(given: Texts, param: str) -> list[Any]:
    """Texts or lists of token ids, of one kind."""
    if isinstance(given, str):
        return [given]
    if len(given) > MOST_TEXTS and not isinstance(given[0], int):
        raise FieldError(f"{param} has {len(given)} texts, expected at most {MOST_TEXTS} in a request", param)
    if len({type(one) for one in given}) > 1:
        raise FieldError(f"{param} holds texts, token ids and lists of these, expected one kind", param)
    return [given] if isinstance(given[0], int) else list(given)


def stops_of(body: Generating) -> list[str]:
    return [body.stop] if isinstance(body.stop, str) else list(body.stop or [])
