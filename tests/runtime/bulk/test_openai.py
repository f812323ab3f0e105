"""Bodies of OpenAI's requests as options, and answers as OpenAI's responses."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from edgellm.bulk.bodies import read_chat, read_completion, read_embedding
from edgellm.bulk.forms import Columns, Requests
from edgellm.bulk.lines import Chatted, Embedded, Line
from edgellm.bulk.openai import (
    Label,
    chat_completion,
    described,
    embedding_list,
    merged,
    text_completion,
    without_stop,
)
from edgellm.errors import ContextOverflowError, FieldError, MissingDependencyError, OutOfMemoryError
from edgellm.generation.results import GeneratedSequence, Generation, Timing
from edgellm.text.answers import AnswerParts, ToolCall

HELLO = [{"role": "user", "content": "Hello"}]
LABEL = Label("x-1", "tiny", 5)


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {}),
        ({"max_tokens": 5, "model": "any", "user": "me"}, {"max_new_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 7}, {"max_new_tokens": 7}),
        ({"temperature": 0, "top_p": 0.5}, {"do_sample": False}),
        ({"temperature": 0.5, "seed": 3}, {"do_sample": True, "temperature": 0.5, "seed": 3}),
        ({"top_p": 0.9}, {"do_sample": True, "top_p": 0.9}),
        ({"n": 2}, {"do_sample": True, "num_return_sequences": 2}),
        ({"n": 2, "num_beams": 2}, {"num_beams": 2, "num_return_sequences": 2}),
        ({"n": 1}, {}),
        ({"stop": "END"}, {"stop": ["END"]}),
        ({"stop": ["a", "b"], "top_k": 7, "repetition_penalty": 1.2},
         {"do_sample": True, "stop": ["a", "b"], "top_k": 7, "repetition_penalty": 1.2}),
        ({"max_tokens": None, "stream": False, "top_logprobs": 0}, {}),
        ({"frequency_penalty": 0.5, "logit_bias": {"5": 1}}, {"frequency_penalty": 0.5, "logit_bias": {"5": 1}}),
        ({"response_format": {"type": "json_object"}}, {"json_schema": {"type": "object"}}),
    ],
)  # fmt: skip
def test_fields_are_options(fields: dict[str, Any], options: dict[str, Any]) -> None:
    ask = read_chat({"messages": HELLO, **fields})
    assert (ask.inputs, ask.options) == ([HELLO], options)
    if fields.keys().isdisjoint(["max_completion_tokens", "top_logprobs"]):  # which texts have not
        assert read_completion({"prompt": "Hello", **fields}).options == options


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"messages": None}, "messages", "Expected `array`, got `null`"),
        ({"temprature": 1}, "temprature", "unknown field 'temprature'; did you mean 'temperature'"),
        ({"stream": True}, "stream", "stream is True, which is not done here; leave it out"),
        ({"logprobs": True}, "logprobs", "logprobs is True"),
        ({"top_logprobs": 2}, "top_logprobs", "top_logprobs is 2"),
        ({"tool_choice": "any"}, "tool_choice", "tool_choice is 'any'"),
    ],
)
def test_what_is_not_done_is_an_error_that_names_the_field(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(FieldError) as caught:
        read_chat({"messages": HELLO, **fields})
    assert str(caught.value).startswith(message)
    status, error = described(caught.value)
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)


@pytest.mark.parametrize(
    ("value", "inputs"),
    [("a", ["a"]), ([1, 2], [[1, 2]]), (["a", "b"], ["a", "b"]), ([[1, 2], [3]], [[1, 2], [3]])],
)
def test_a_prompt_is_one_or_several(value: Any, inputs: list[Any]) -> None:
    assert read_completion({"prompt": value}).inputs == inputs
    assert read_embedding({"input": value}).inputs == inputs


@pytest.mark.parametrize("value", [[], 5, {}, ["a", 1]])
def test_what_is_no_prompt(value: Any) -> None:
    with pytest.raises(FieldError, match="prompt"):
        read_completion({"prompt": value})


def test_a_request_that_is_greedy_leaves_the_others_sampling_out() -> None:
    usual = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_length": 50, "seed": 1}
    assert merged(usual, {"do_sample": False, "max_new_tokens": 4}) == {
        "do_sample": False, "max_new_tokens": 4, "seed": 1
    }  # fmt: skip
    assert merged(usual, {"temperature": 0.2}) == {**usual, "temperature": 0.2}


def generation(*sequences: tuple[str, str]) -> Generation:
    made = tuple(GeneratedSequence(text, (1, 2), reason) for text, reason in sequences)
    return Generation(made, 7, Timing(0.1, 0.2, 7, 2))


def test_a_chat_completion() -> None:
    sequences = generation(("One END", "stop_string"), ("Two", "length"), ("x", "eos"))
    texts = [without_stop(sequence, ["ND", "END"]) for sequence in sequences.sequences]
    found = chat_completion(LABEL, Chatted(sequences, [AnswerParts(text, "", ()) for text in texts]))
    assert found == {
        "id": "x-1",
        "object": "chat.completion",
        "created": 5,
        "model": "tiny",
        "choices": [
            {"index": i, "message": {"role": "assistant", "content": text, "refusal": None}, "logprobs": None,
             "finish_reason": reason}
            for i, (text, reason) in enumerate([("One ", "stop"), ("Two", "length"), ("x", "stop")])
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13},
    }  # fmt: skip


def test_calls_and_reasoning_of_a_chat() -> None:
    parts = AnswerParts("", "hm", (ToolCall("call_1", "f", '{"a": 1}'),))
    (choice,) = chat_completion(LABEL, Chatted(generation(("x", "eos")), [parts]))["choices"]
    called = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant", "content": None, "refusal": None, "reasoning_content": "hm", "tool_calls": [called],
    }  # fmt: skip


def test_a_text_completion_of_several_prompts() -> None:
    found = text_completion(LABEL, [generation(("One", "eos")), generation(("Two", "time"))])
    assert [(c["index"], c["text"], c["finish_reason"]) for c in found["choices"]] == [
        (0, "One", "stop"), (1, "Two", "length")
    ]  # fmt: skip
    assert found["object"] == "text_completion"
    assert found["usage"] == {"prompt_tokens": 14, "completion_tokens": 4, "total_tokens": 18}


def test_embeddings_as_numbers_and_as_bytes() -> None:
    embedded = [Embedded([0.5, -1.0], 3), Embedded([0.25, 2.0], 4)]
    found = embedding_list({}, "tiny", embedded)
    assert [each["embedding"] for each in found["data"]] == [[0.5, -1.0], [0.25, 2.0]]
    assert found["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    packed = embedding_list({"encoding_format": "base64", "dimensions": 2}, "tiny", embedded)
    assert packed["data"][0]["embedding"] == "AAAAPwAAgL8="
    with pytest.raises(FieldError, match="dimensions is 3, and this model's vectors have 2"):
        embedding_list({"dimensions": 3}, "tiny", embedded)


def test_whose_fault_an_error_is() -> None:
    assert described(ContextOverflowError("long"))[1]["code"] == "context_length_exceeded"
    assert described(OutOfMemoryError("full"))[0] == 503
    status, error = described(KeyError("x"))
    assert (status, error["type"], error["message"]) == (500, "server_error", "unexpected KeyError: 'x'")


def test_only_lines_in_openais_form_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("edgellm.bulk.bodies", "edgellm.openai.options", "edgellm.openai.schema"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(MissingDependencyError, match=r"extra `batch` .*msgspec is missing"):
        Requests.of("text", "package", "job")
    assert Columns("text").ask(Line(0, "in.jsonl, line 1", {"prompt": "Hi"}, 1)).inputs == ["Hi"]
