"""The public calls on a tiny model: texts, lists, options of their own, streams, stops, chats, scores."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from edgellm import InputError, Model, OptionError
from tiny_package import TinyConfig, greedy, reference_logits

PackageMaker = Callable[[TinyConfig], Path]
TINY = TinyConfig()
TO_THE_LIMIT: dict[str, Any] = {"eos_token_id": []}


def assert_close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)


def test_text_prompts_and_results(model: Model) -> None:
    result = model.generate("Hello", max_new_tokens=12, logprobs=True, **TO_THE_LIMIT)
    assert result.tokens == greedy(TINY, list(b"Hello"), 12)
    assert result.text == model.tokenizer.decode(result.tokens) == str(result)
    assert result.logprobs is not None
    ids = [*b"Hello", *result.tokens]
    assert_close(result.logprobs, log_softmax(reference_logits(TINY, ids))[range(4, 16), ids[5:]])
    assert result.timing.new_tokens == 12
    assert 0 < result.timing.time_to_first_token_s < result.timing.total_s
    assert result.timing.tokens_per_second > 0


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def test_one_prompt_gives_one_result_and_a_list_a_list(model: Model) -> None:
    alone = model.generate("ab", max_new_tokens=3)
    assert isinstance(alone, edgellm.Generation)
    for prompts in (["ab"], [[97, 98]], [np.array([97, 98])], ("ab",)):
        (result,) = model.generate(prompts, max_new_tokens=3)  # type: ignore[call-overload]
        assert result.tokens == alone.tokens
    assert model.generate(np.array([97, 98], np.int32), max_new_tokens=3).tokens == alone.tokens


def test_beams_and_several_sequences(model: Model) -> None:
    result = model.generate("ab", max_new_tokens=6, num_beams=4, num_return_sequences=3, **TO_THE_LIMIT)
    assert len(result.sequences) == 3
    scores = [sequence.score for sequence in result.sequences]
    assert scores == sorted(scores, reverse=True)
    best = result.sequences[0]
    assert (result.text, result.tokens, result.score) == (best.text, best.tokens, best.score)
    ids = [*b"ab", *best.tokens]
    total = log_softmax(reference_logits(TINY, ids))[range(1, 7), ids[2:]].sum()
    assert_close(best.score, total / 6)


OWN_OPTIONS: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "seed": 3, "num_return_sequences": 2, "temperature": 1.5},
    {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "max_new_tokens": 5},
    {"logprobs": True, "suppress_tokens": [1, 2, 3]},
    {"stop_strings": ["a", "e", "i", "o", "u", " ", "~"], "max_new_tokens": 40},
    {"num_beams": 3, "num_return_sequences": 2},
    {"eos_token_id": list(range(0, 264, 2)), "min_new_tokens": 3},
    {"prompt_lookup": True, "max_new_tokens": 50},
]


def test_prompts_with_options_of_their_own_get_what_they_get_alone(model: Model) -> None:
    prompts = ["abcabcabc", [1, 2, 3], "Hi", list(range(40, 75)), "x", [9], "yes", "ab ab ab ab"]
    shared: dict[str, Any] = {"max_new_tokens": 12, **TO_THE_LIMIT}
    together = model.generate(prompts, options=OWN_OPTIONS, **shared)  # type: ignore[arg-type]
    for found, prompt, own in zip(together, prompts, OWN_OPTIONS, strict=True):
        alone = model.generate(prompt, **{**shared, **own})  # type: ignore[arg-type]
        assert [s.tokens for s in found.sequences] == [s.tokens for s in alone.sequences]
        assert [(s.text, s.finish_reason) for s in found.sequences] == [
            (s.text, s.finish_reason) for s in alone.sequences
        ]
        assert found.prompt_tokens == alone.prompt_tokens
        for one, other in zip(found.sequences, alone.sequences, strict=True):
            assert_close(one.logprobs or [], other.logprobs or [])
            assert (one.logprobs is None) == (not own.get("logprobs"))
            assert_close(one.score or 0, other.score or 0)
    assert {found.finish_reason for found in together} == {"length", "stop_string", "eos"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([{}], r"options has 1 entries, expected one for each of 2 prompts"),
        ([{}, {}, {}], r"options has 3 entries, expected one for each of 2 prompts"),
        ({"seed": 3}, r"options is \{'seed': 3\}, expected a list of dicts, one for each prompt"),
        ("greedy", r"options is 'greedy', expected a list of dicts"),
        (7, r"options is 7, expected a list of dicts"),
        ([{}, None], r"options\[1\] is None, expected a dict of options by name"),
        ([{}, {1: 2}], r"options\[1\] is \{1: 2\}, expected a dict of options by name"),
        ([{}, {"temprature": 1}], r"options\[1\]: unknown option 'temprature'; did you mean 'temperature'"),
        ([{"max_new_tokens": 0}, {}], r"options\[0\]: max_new_tokens is 0, expected a whole number from 1"),
        ([{}, {"do_sample": False}], r"options\[1\]: top_p is 0.9 and has no effect without do_sample=True"),
        ([{"suppress_tokens": [999]}, {}], r"options\[0\]: suppress_tokens holds 999"),
        ([{}, {"overflow": "shift"}], r"overflow is \"shift\" with 2 prompts"),
    ],
)
def test_wrong_options_of_their_own(model: Model, options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model.generate(["a", "b"], options=options, do_sample=True, top_p=0.9)


def test_one_prompt_may_come_with_its_options(model: Model) -> None:
    expected = model.generate("Hi", max_new_tokens=4).tokens
    assert model.generate(["Hi"], options=[{"max_new_tokens": 4}])[0].tokens == expected
    with pytest.raises(OptionError, match="unknown option 'options'"):
        model.stream("Hi", options=[{}])


def test_streaming_gives_what_generate_gives(model: Model) -> None:
    for options in ({}, {"do_sample": True, "seed": 3}, {"max_new_tokens": 1}, {"logprobs": True}):
        options = {"max_new_tokens": 30, **TO_THE_LIMIT, **options}
        whole = model.generate("Hi", **options)
        pieces = list(model.stream("Hi", **options))
        assert "".join(piece.text for piece in pieces) == whole.text
        assert tuple(token for piece in pieces for token in piece.tokens) == whole.tokens
        assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["length"]
        if whole.logprobs is not None:
            assert tuple(logprob for piece in pieces for logprob in piece.logprobs or ()) == whole.logprobs


def test_closing_a_stream_stops_it(package: Path) -> None:
    model = edgellm.load(package)
    stream = model.stream("Hi", max_new_tokens=50, **TO_THE_LIMIT)
    next(stream)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert model.generate("Hi", max_new_tokens=5, **TO_THE_LIMIT).tokens == greedy(TINY, list(b"Hi"), 5)


def test_two_streams_at_once(package: Path) -> None:
    model = edgellm.load(package)
    streams = [model.stream(text, max_new_tokens=20, **TO_THE_LIMIT) for text in ("one", "two")]
    tokens = [[piece.tokens[0] for piece in pair] for pair in zip(*streams, strict=True)]
    for i, text in enumerate(("one", "two")):
        assert tuple(pair[i] for pair in tokens) == greedy(TINY, list(text.encode()), 20)


def test_several_threads(package: Path) -> None:
    model = edgellm.load(package, threads=2)
    expected = {text: greedy(TINY, list(text.encode()), 15) for text in ("a", "bb", "ccc", "dddd")}
    found: dict[str, set[tuple[int, ...]]] = {text: set() for text in expected}

    def work(text: str) -> None:
        for _ in range(10):
            found[text].add(model.generate(text, max_new_tokens=15, **TO_THE_LIMIT).tokens)

    threads = [threading.Thread(target=work, args=(text,)) for text in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {text: {tokens} for text, tokens in expected.items()}


def test_stop_strings_and_end_tokens(package: Path) -> None:
    model = edgellm.load(package)
    free = model.generate("Hi", max_new_tokens=30, **TO_THE_LIMIT)
    at = next(i for i in range(5, 30) if free.tokens[i] < 128)
    stop = chr(free.tokens[at])
    first = free.tokens.index(free.tokens[at])
    stopped = model.generate("Hi", max_new_tokens=30, stop_strings=stop, **TO_THE_LIMIT)
    assert stopped.finish_reason == "stop_string"
    assert stopped.tokens == free.tokens[: first + 1]
    assert stopped.text.endswith(stop)
    ended = model.generate("Hi", max_new_tokens=30, eos_token_id=free.tokens[at])
    assert (ended.finish_reason, ended.tokens) == ("eos", free.tokens[: first + 1])


def test_chat(package: Path) -> None:
    model = edgellm.load(package)
    messages = [{"role": "user", "content": "Hi"}]
    options = {"max_new_tokens": 8, **TO_THE_LIMIT}
    prompt = [259, *b"user\nHi", 260, *b"\n", 259, *b"assistant\n"]
    answer = model.chat(messages, **options)
    assert answer.tokens == greedy(TINY, prompt, 8)
    assert answer.prompt_tokens == len(prompt)
    assert "".join(piece.text for piece in model.stream_chat(messages, **options)) == answer.text


def test_the_packages_generation_defaults(make_package: PackageMaker) -> None:
    model = edgellm.load(make_package(TinyConfig(generation={"max_new_tokens": 4, "unknown": 1})))
    assert len(model.generate("Hi", **TO_THE_LIMIT).tokens) == 4
    assert len(model.generate("Hi", max_new_tokens=6, **TO_THE_LIMIT).tokens) == 6


def test_score(package: Path) -> None:
    model = edgellm.load(package, prefill_chunk=4)
    score = model.score("Hello you")
    ids = list(b"Hello you")
    expected = log_softmax(reference_logits(TINY, ids))[range(8), ids[1:]]
    assert score.tokens == tuple(ids)
    assert_close(score.logprobs, expected)
    assert math.isclose(score.total, expected.sum(), rel_tol=1e-5)
    assert math.isclose(score.perplexity, math.exp(-expected.mean()), rel_tol=1e-4)
    with pytest.raises(InputError, match="at least two tokens"):
        model.score("H")
