"""Recordings of any length, as transformers' `generate` writes them down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import edgellm
import speech_checkpoints
from edgellm.evaluation.kinds import kind_of
from edgellm.evaluation.records import Columns, Record
from edgellm.ort.kernels import library
from row_driver import assert_exact_however_they_came
from speech_checkpoints import (
    FRAMES,
    GERMAN,
    PREVIOUS,
    START,
    extractor,
    features_of,
    hf_transcribe,
    make_tokenizer,
    sound,
)

Load = Callable[..., edgellm.SpeechModel]
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers, about its older options


def assert_same(found: Any, expected: list[dict[str, Any]]) -> None:
    ours = [(segment.start, segment.end, list(segment.tokens)) for segment in found]
    theirs = [(float(each["start"]), float(each["end"]), each["tokens"].tolist()) for each in expected]
    assert [tokens for *_, tokens in ours] == [tokens for *_, tokens in theirs]
    assert [times for *times, _ in ours] == [pytest.approx(times) for *times, _ in theirs]


TIMESTAMPS = {"return_timestamps": True}
CASES: list[tuple[str, float, dict[str, Any]]] = [
    ("many", 0.7, {}),
    ("many", 1.0, TIMESTAMPS),
    ("many", 2.6, {}),
    ("many", 3.3, {"condition_on_prev_tokens": True}),
    ("many", 2.6, {"num_beams": 3}),
    ("many", 1.7, {"language": "german", "task": "translate"}),
    ("many", 0.7, {"language": "en", **TIMESTAMPS}),
    ("many", 0.7, {"task": "transcribe"}),
    ("many", 2.6, {"logprob_threshold": -1.5, "no_speech_threshold": 0.001, "temperature": (0.0, 0.0)}),
    ("many", 0.7, {"compression_ratio_threshold": 0.1, "temperature": (0.0, 0.0)}),
    ("many", 1.6, {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}),
    ("english", 0.7, {}),
    ("english", 2.6, {}),
    ("older", 0.7, {}),
    ("older", 2.6, {"condition_on_prev_tokens": True}),
    ("older", 0.7, {"language": "de"}),
]


@pytest.mark.parametrize(("kind", "seconds", "options"), CASES)
def test_segments(
    kind: str, seconds: float, options: dict[str, Any], load: Load, reference: Callable[..., Any]
) -> None:
    samples = sound(seconds)
    found = load(kind).transcribe(samples, **options)
    assert_same(found.segments, hf_transcribe(reference(kind), samples, **options))


@pytest.mark.parametrize(
    "options",
    [
        {"return_timestamps": True},
        {"condition_on_prev_tokens": True},
        {"condition_on_prev_tokens": True, "prompt_condition_type": "all-segments"},
    ],
)
def test_a_prompt(options: dict[str, Any], load: Load, reference: Callable[..., Any]) -> None:
    samples, prompt = sound(2.3, seed=1), [PREVIOUS, 41, 42, 43]
    found = load().transcribe(samples, prompt=prompt, **options)
    assert_same(found.segments, hf_transcribe(reference(), samples, prompt_ids=torch.tensor(prompt), **options))
    assert load().prompt_tokens("abc") == tuple(make_tokenizer().get_prompt_ids("abc").tolist())


@pytest.mark.parametrize("seconds", [0.7, 2.6])
@pytest.mark.parametrize("timestamps", [None, True])
def test_the_pipeline(seconds: float, timestamps: bool | None, load: Load, reference: Callable[..., Any]) -> None:
    parts = {"tokenizer": make_tokenizer(), "feature_extractor": extractor()}
    theirs = hf.pipeline("automatic-speech-recognition", model=reference(), **parts)
    ours = edgellm.pipeline("automatic-speech-recognition", load())
    recording = {"array": sound(seconds, seed=2), "sampling_rate": 16000}
    given = {} if timestamps is None else {"return_timestamps": timestamps}
    assert ours(recording, **given) == theirs(dict(recording), **given)
    assert ours([recording], **given) == [ours(recording, **given)]


SAID = [
    ("many", 0.7, 2),
    ("many", 1.0, 3),
    ("many", 2.6, 2),
    ("many", 3.3, 0),
    ("english", 0.9, 1),
    ("english", 2.2, 4),
]


@pytest.mark.parametrize(("kind", "seconds", "seed"), SAID)
@pytest.mark.parametrize("beams", [1, 3])
def test_words(kind: str, seconds: float, seed: int, beams: int, load: Load, reference: Callable[..., Any]) -> None:
    parts = {"tokenizer": make_tokenizer(), "feature_extractor": extractor()}
    theirs = hf.pipeline("automatic-speech-recognition", model=reference(kind), **parts)
    ours = edgellm.pipeline("automatic-speech-recognition", load(kind))
    recording = {"array": sound(seconds, seed=seed), "sampling_rate": 16000}
    given: dict[str, Any] = {"return_timestamps": "word", "generate_kwargs": {"num_beams": beams}}
    found = ours(recording, **given)
    assert found == theirs(dict(recording), **given)
    assert "".join(chunk["text"] for chunk in found["chunks"]) == found["text"]


@pytest.mark.parametrize(("kind", "seconds", "seed"), SAID)
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"max_new_tokens": 6}, {"prompt": (PREVIOUS, 41, 42)}])
def test_times_of_tokens(
    kind: str, seconds: float, seed: int, options: dict[str, Any], load: Load, reference: Callable[..., Any]
) -> None:
    samples = sound(seconds, seed=seed)
    heard = torch.ones(1, -(-len(samples) // 160) if len(samples) <= 16000 else len(samples) // 160, dtype=torch.long)
    theirs = {**options, "attention_mask": torch.nn.functional.pad(heard, (0, max(0, 100 - heard.shape[1])))}
    if "prompt" in options:
        theirs["prompt_ids"] = torch.tensor(theirs.pop("prompt"))
    expected = hf_transcribe(
        reference(kind), samples, return_timestamps=True, return_token_timestamps=True, **theirs
    )  # fmt: skip
    found = load(kind).transcribe(samples, return_timestamps="word", **options).segments
    assert_same(found, expected)
    assert [segment.times for segment in found] == [
        pytest.approx(each["token_timestamps"].tolist(), abs=1e-5) for each in expected
    ]
    assert len({time for segment in found for time in segment.times}) > 1


def test_words_need_what_they_are_timed_by(shared: Any) -> None:
    model = edgellm.load(speech_checkpoints.package("many", "fp32", shared), threads=1)
    assert isinstance(model, edgellm.SpeechModel)
    graphs, heads = model.manifest.graphs, model.tokens.alignment_heads
    assert graphs["decoder"].outputs == ("logits", "cross_queries.0", "cross_queries.1")
    model.tokens = replace(model.tokens, alignment_heads=())
    with pytest.raises(edgellm.OptionError, match="names no alignment_heads"):
        model.transcribe(sound(0.5), return_timestamps="word")
    model.tokens = replace(model.tokens, alignment_heads=heads)
    older = replace(graphs["decoder"], outputs=("logits", "cross_queries.0"))
    model.manifest = replace(model.manifest, graphs={**graphs, "decoder": older})
    with pytest.raises(edgellm.OptionError, match="export the checkpoint again"):
        model.transcribe(sound(0.5), return_timestamps="word")


@pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")
def test_rows_that_came_at_different_times(load: Load) -> None:
    windows = [np.random.default_rng(seed).normal(size=(80, FRAMES)).astype(np.float32) for seed in range(3)]
    assert_exact_however_they_came(load("many", "int8")._new_engine, [START, GERMAN, 5], windows)


def test_a_stream_gives_the_segments_one_by_one(load: Load) -> None:
    samples = sound(2.6)
    whole = load().transcribe(samples)
    stream = load().stream(samples)
    assert next(stream) == whole.segments[0]
    assert (whole.segments[0], *stream) == whole.segments
    assert whole.text == "".join(segment.text for segment in whole.segments)


def test_it_stops_when_it_is_told_to(load: Load) -> None:
    cancel = Event()
    stream = load().stream(sound(3.3), cancel=cancel)
    next(stream)
    cancel.set()
    assert list(stream) == []


def test_a_language_is_found_out_or_said(load: Load, reference: Callable[..., Any]) -> None:
    samples = sound(1.0, seed=3)
    heard = int(reference().detect_language(features_of(samples))[0])
    assert load().transcribe(samples).language == ("de" if heard == GERMAN else "en")
    assert load().transcribe(samples, language="German").language == "de"
    assert load("english").transcribe(samples).language is None


def test_what_is_no_good_is_written_again_at_the_next_temperature(load: Load) -> None:
    given = {"temperature": (0.0, 0.4, 0.8), "seed": 1, "return_timestamps": True}
    never = load().transcribe(sound(1.0), logprob_threshold=0.0, **given)
    assert {segment.written.temperature for segment in never.segments} == {0.8}
    at_once = load().transcribe(sound(1.0), logprob_threshold=-100.0, **given)
    assert {segment.written.temperature for segment in at_once.segments} == {0.0}
    again = load().transcribe(sound(1.0), logprob_threshold=0.0, **given)
    assert again == never


def test_calls_side_by_side_do_not_meet(load: Load) -> None:
    samples = [sound(1.2, seed) for seed in (4, 5)]
    alone = [load().transcribe(each) for each in samples]
    streams = [load().stream(each) for each in samples]
    firsts = [next(stream) for stream in streams]
    assert [(first, *stream) for first, stream in zip(firsts, streams, strict=True)] == [a.segments for a in alone]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "klingon"}, "language is 'klingon', which this model does not know"),
        ({"task": "sing"}, "task is 'sing'"),
        ({"temperature": -1}, r"temperature is \[-1\], expected numbers from 0"),
        ({"no_speech_threshold": 0.5}, "no effect without logprob_threshold"),
        ({"do_sample": True}, "do_sample is not for speech"),
        ({"num_beam": 2}, "unknown option 'num_beam'; did you mean 'num_beams'"),
        ({"prompt_condition_type": "all-segments"}, "needs condition_on_prev_tokens"),
        ({"prompt": "a<|en|>"}, r"the prompt has the special token <\|en\|>"),
        ({"prompt": list(range(70))}, "model's context is 64"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str, load: Load) -> None:
    with pytest.raises(edgellm.EdgellmError, match=message):
        load().transcribe(sound(1.0), **options)


def test_english_models_have_no_choice(load: Load) -> None:
    with pytest.raises(edgellm.OptionError, match="this model knows English only"):
        load("english").transcribe(sound(1.0), language="en")
    with pytest.raises(edgellm.OptionError, match="this model only transcribes"):
        load("english").transcribe(sound(1.0), task="translate")


def test_long_recordings_need_timestamps(load: Load) -> None:
    with pytest.raises(edgellm.OptionError, match="longer than a window"):
        load().transcribe(sound(1.5), return_timestamps=False)


def test_features_of_another_size(load: Load) -> None:
    with pytest.raises(edgellm.InputError, match=r"features are \[128, 100\], expected \[80, 100 or more\]"):
        load().transcribe_features(np.zeros((128, 100), np.float32))


def test_other_tasks_refuse_the_package(load: Load) -> None:
    with pytest.raises(edgellm.TaskError, match="can do automatic-speech-recognition"):
        edgellm.pipeline("summarization", load())
    record = Record({"text": "a"}, "here")
    for name in (None, "perplexity", "divergence"):
        with pytest.raises(edgellm.EdgellmError, match=r"not judged by texts|can only be compared"):
            kind_of(name, load().manifest, Columns.create(), record, reference=False)
