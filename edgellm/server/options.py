"""What a request's fields mean as options of `generate`."""

from __future__ import annotations

from typing import Any

from edgellm.errors import OptionError
from edgellm.server.failures import Refusal
from edgellm.server.schema import ChatRequest, CompletionRequest, Generating, ResponsesRequest, Texts
from edgellm.server.settings import ServerSettings
from edgellm.serving.text_format import text_format

SAME = (
    "seed", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias"
)  # fmt: skip
MOST_TEXTS = 2048  # of a request, as OpenAI has it
CONSTRAINTS = ("json_schema", "regex", "grammar", "choices")
SAMPLING = ("top_p", "top_k", "min_p")


def sampling_options(body: Generating | ResponsesRequest, settings: ServerSettings) -> dict[str, Any]:
    """A temperature of 0 is greedy search, any other number for sampling samples; without them the package's
    generation_config.json decides."""
    sampling = {name: value for name in SAMPLING if (value := getattr(body, name, None)) is not None}
    options: dict[str, Any] = {}
    if body.temperature == 0:
        options["do_sample"] = False
    elif body.temperature is not None or sampling or (getattr(body, "n", None) or 1) > 1:
        options |= {"do_sample": True, **sampling}
        if body.temperature is not None:
            options["temperature"] = body.temperature
    if settings.max_seconds is not None:
        options["max_time"] = settings.max_seconds
    return options


def options_of(body: Generating, settings: ServerSettings, context_length: int) -> dict[str, Any]:
    """Without a limit, an answer may fill the context."""
    options = sampling_options(body, settings)
    options |= {name: value for name in (*SAME, *CONSTRAINTS) if (value := getattr(body, name)) is not None}
    if options.get("seed") is not None:
        options["seed"] %= 1 << 63  # OpenAI's are signed
    if body.n is not None and body.n > 1:
        options["num_return_sequences"] = body.n
    if stops := stops_of(body):
        options["stop"] = stops
    options["max_new_tokens"] = body.max_tokens or context_length
    return options


def chat_options(body: ChatRequest, settings: ServerSettings, context_length: int) -> dict[str, Any]:
    options = options_of(body, settings, context_length)
    if body.max_completion_tokens is not None:
        options["max_new_tokens"] = body.max_completion_tokens
    if body.logprobs:
        options |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    if body.reasoning_budget is not None:
        options["reasoning_budget"] = body.reasoning_budget
    if body.response_format is not None:
        options |= format_options(body.response_format, "response_format")
    return options


def effort_variables(effort: str, template: str) -> dict[str, Any]:
    """What a chat template is told of how much to reason, where it asks: for a word, or whether to at all."""
    if "reasoning_effort" in template:
        return {"reasoning_effort": effort}
    return {"enable_thinking": effort != "none"} if "enable_thinking" in template else {}


def format_options(given: Any, param: str) -> dict[str, Any]:
    """What the text has to be. Raises Refusal."""
    try:
        return text_format(given, param)
    except OptionError as error:
        raise Refusal(400, str(error), param=param) from error


def completion_options(body: CompletionRequest, settings: ServerSettings, context_length: int) -> dict[str, Any]:
    options = options_of(body, settings, context_length)
    options["max_new_tokens"] = body.max_tokens or 16  # OpenAI's default, which its clients count on
    if body.logprobs is not None:
        options |= {"logprobs": True, "top_logprobs": body.logprobs}
    return options


def texts_of(given: Texts, param: str) -> list[Any]:
    """Texts or lists of token ids. Raises Refusal where they are not of one kind."""
    if isinstance(given, str):
        return [given]
    if len(given) > MOST_TEXTS and not isinstance(given[0], int):
        raise Refusal(400, f"{param} has {len(given)} texts, expected at most {MOST_TEXTS} in a request", param=param)
    if len({type(one) for one in given}) > 1:
        raise Refusal(400, f"{param} holds texts, token ids and lists of these, expected one kind", param=param)
    return [given] if isinstance(given[0], int) else list(given)


def stops_of(body: Generating) -> list[str]:
    return [body.stop] if isinstance(body.stop, str) else list(body.stop or [])
