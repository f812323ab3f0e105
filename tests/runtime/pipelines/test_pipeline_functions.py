"""What pipelines compute without a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgellm.decoding.options import GenerationOptions
from edgellm.errors import PackageCorruptError
from edgellm.pipelines.entities import Entity, entities_of, split_label, without_overlaps
from edgellm.pipelines.generation import generation_options, parameters_for
from edgellm.pipelines.question_answering import likely_spans
from edgellm.pipelines.scores import best, sigmoid, softmax
from edgellm.pipelines.sentence_similarity import cosines
from edgellm.pipelines.special import Special
from edgellm.pipelines.text_generation import continued
from edgellm.pipelines.zero_shot import entailed
from edgellm.text.encodings import from_tokenizer
from edgellm.text.tokenizer import Tokenizer
from tiny_package import tiny_tokenizer

SAMPLING = {"do_sample": True, "temperature": 0.7}
BEAMS = {"num_beams": 4}


@pytest.mark.parametrize(
    ("given", "for_task", "package", "usual", "expected"),
    [
        ({}, {}, {}, SAMPLING, SAMPLING),
        ({}, {}, {"do_sample": False}, SAMPLING, {"do_sample": None}),
        ({}, {}, {"temperature": 0.3}, SAMPLING, {"do_sample": True}),
        ({"do_sample": False}, {}, {}, SAMPLING, {"do_sample": False}),
        ({"temperature": 0.2}, {}, {}, SAMPLING, {"do_sample": True, "temperature": 0.2}),
        ({}, {"do_sample": False, "top_k": 9}, {}, SAMPLING, {"do_sample": False}),
        ({}, {}, {}, BEAMS, BEAMS),
        ({}, {}, {"num_beams": 6}, BEAMS, {}),
        ({}, {"num_beams": 2, "length_penalty": 2.0}, {"num_beams": 6}, BEAMS, {"num_beams": 2, "length_penalty": 2.0}),
        ({"num_beams": 1}, {"length_penalty": 2.0, "early_stopping": True}, {}, BEAMS, {"num_beams": 1}),
        ({}, {"max_length": 9, "min_length": 3, "prefix": "x"}, {}, {}, {"min_length": 3}),
        ({}, {"max_length": 9}, {"max_length": 50}, {}, {"max_length": 9}),
        ({"max_length": 7}, {"max_length": 9}, {}, {}, {"max_length": 7}),
        ({"no_such": 1}, {"unknown": 2}, {}, {}, {"no_such": 1}),
    ],
)
def test_whose_generation_options_count(given: Any, for_task: Any, package: Any, usual: Any, expected: Any) -> None:
    found = generation_options(given, for_task=for_task, package=package, usual=usual)
    assert found == {name: value for name, value in expected.items() if value is not None}
    if "no_such" not in given:
        GenerationOptions.create(package, **found)  # nothing is without effect


def test_parameters_of_a_task() -> None:
    config = {"prefix": "p: ", "task_specific_params": {"a": {"num_beams": 2}, "translation_x_to_y": {"prefix": "q: "}}}
    assert parameters_for("a", config) == ({"num_beams": 2}, "p: ")
    assert parameters_for("translation", config) == ({"prefix": "q: "}, "q: ")
    assert parameters_for("b", config) == ({}, "p: ")
    for damaged in ({}, {"task_specific_params": None, "prefix": 3}, {"task_specific_params": {"a": []}}):
        assert parameters_for("a", damaged) == ({}, "")


def test_probabilities() -> None:
    logits = np.array([-1000.0, 0.0, 1000.0], np.float32)
    assert softmax(logits).tolist() == [0, 0, 1]
    assert sigmoid(logits).tolist() == [0, 0.5, 1]
    assert best(np.array([0.1, 0.9, 0.5]), 2).tolist() == [1, 2]
    assert best(np.array([0.1, 0.9, 0.5]), 9).tolist() == [1, 2, 0]
    assert entailed(np.array([[5.0, 0.0], [5.0, 5.0]]), 1, independent=True).tolist() == [
        pytest.approx(0.00669, abs=1e-5),
        0.5,
    ]
    assert cosines(np.array([1.0, 0]), np.array([[2.0, 0], [0, 1], [0, 0]])).tolist() == [1, 0, 0]


def test_answers_end_behind_their_beginning_and_inside_the_context() -> None:
    rng = np.random.default_rng(0)
    allowed = np.array([True, False, False, *[True] * 20])
    spans = likely_spans(rng.normal(size=23), rng.normal(size=23), allowed, count=500, max_length=4)
    lengths = spans.ends - spans.starts + 1
    likely = spans.scores > 0
    assert set(lengths[likely]) == {1, 2, 3, 4}
    assert spans.starts[likely].min() == 3
    assert 0 < spans.no_answer < 1
    assert (np.diff(spans.scores) <= 0).all()


def test_entities() -> None:
    assert [split_label(label) for label in ("B-PER", "I-PER", "O", "MISC-X")] == [
        ("B", "PER"), ("I", "PER"), ("I", "O"), ("I", "MISC-X"),
    ]  # fmt: skip
    assert entities_of([], {0: "O"}, "max", " ".join) == []
    long, short, later = Entity("A", 0.5, "ab c", 0, 4), Entity("B", 0.9, "b", 1, 2), Entity("C", 0.1, "d", 4, 5)
    assert without_overlaps([short, later, long]) == [long, later]
    assert without_overlaps([]) == []


def test_special_tokens() -> None:
    tokenizer = Tokenizer(tiny_tokenizer())
    config = {"mask_token": {"content": "<|pad|>"}, "unk_token": "no such token", "model_max_length": 1e30}
    special = Special.create(config, tokenizer, context_length=96)
    assert (special.mask, special.mask_text, special.unk, special.cls) == (258, "<|pad|>", None, None)
    assert special.max_length == 96
    for length in ({"model_max_length": 12}, {"max_len": 12}, {"model_max_length": 12.5}):
        assert Special.create(length, tokenizer, 96).max_length == 12
    assert Special.create({"model_max_length": float("inf")}, tokenizer, 96).max_length == 96
    for wrong in (float("nan"), True, -3, "12"):
        with pytest.raises(PackageCorruptError, match=r"model_max_length is .*, expected a number from 1"):
            Special.create({"model_max_length": wrong}, tokenizer, 96)


def test_an_encoding_of_nothing() -> None:
    encoding = from_tokenizer(tiny_tokenizer().encode(""))
    assert (len(encoding), encoding.offsets.shape) == (0, (0, 2))


def test_what_was_generated_is_more_of_the_last_message() -> None:
    asked, parts = {"role": "user", "content": "Hi"}, [{"type": "text", "text": "Yes"}, {"type": "citation"}]
    assert continued("Hi", " you") == "Hi you"
    assert continued([asked], "Yes") == [asked, {"role": "assistant", "content": "Yes"}]
    assert continued([asked, {"role": "assistant", "content": "Yes"}], "!")[1]["content"] == "Yes!"
    assert continued([asked, {"role": "assistant", "content": parts}], "!")[1]["content"] == [
        {"type": "text", "text": "Yes!"}, {"type": "citation"},
    ]  # fmt: skip
