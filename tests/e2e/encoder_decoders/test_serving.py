"""Many requests to an encoder-decoder at once: each gets what it gets alone, and all of them are one run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgellm
from edgellm.engines.in_place.cohort import Cohort
from edgellm.engines.in_place.unequal_rows import UnequalRows
from edgellm.errors import MemoryBudgetError
from edgellm.ort.kernels import library
from edgellm.serving import Answer, Engine
from encoder_decoder_checks import Load
from encoder_decoder_families import sources
from schedule import FREE, Schedule, numbers

needs_kernels = pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")
KINDS: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "seed": 3},
    {"do_sample": True, "seed": 4, "num_return_sequences": 2},
    {"num_beams": 3, "num_return_sequences": 2},
    {"num_beams": 3, "eos_token_id": [2]},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
]
# Of each way to count positions: distances shared by all layers, distances of each layer, a table, rotary.
COUNTING = ["t5", "umt5", "marian", "t5gemma"]


@needs_kernels
@pytest.mark.parametrize("name", COUNTING)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(
        st.tuples(
            st.integers(1, 40),
            st.sampled_from(KINDS),
            st.integers(1, 30),
            st.integers(0, 6),
            st.none() | st.integers(0, 20),
        ),
        min_size=1,
        max_size=7,
    ),
    rows=st.integers(3, 8),
    tokens=st.sampled_from([240, 400, 100_000]),
)
def test_each_request_gets_what_it_gets_alone(
    name: str, load: Load, asked: list[tuple[int, dict[str, Any], int, int, int | None]], rows: int, tokens: int
) -> None:
    """To the last bit: of all kinds side by side, and where a row had to make room and was read again. Those who leave
    have had the beginning of it."""
    model, schedule = load(name, "int8"), Schedule(load(name, "int8"), rows, tokens)
    leaving: list[tuple[int, Answer]] = []

    def step() -> None:
        schedule.scheduler.step()
        for when, answer in leaving:
            if schedule.scheduler.counts.steps >= when:
                answer.cancel()

    options = [{**FREE, "max_new_tokens": new, **kind} for _, kind, new, _, _ in asked]
    texts = [sources(length, seed=length)[0].tolist() for length, *_ in asked]
    for source, chosen, (_, _, _, wait, stays) in zip(texts, options, asked, strict=True):
        answer = schedule.add(source, **chosen)
        if stays is not None:
            leaving.append((schedule.scheduler.counts.steps + stays, answer))
        for _ in range(wait):
            step()
    while not schedule.scheduler.idle:
        step()
    for source, chosen, found in zip(texts, options, schedule.run(), strict=True):
        alone = model.generate(source, **chosen)
        if all(each.finish_reason != "cancelled" for each in found.sequences):
            assert numbers(found) == numbers(alone)
        elif "num_beams" not in chosen:
            for each, whole in zip(found.sequences, alone.sequences, strict=True):
                assert each.tokens == whole.tokens[: len(each.tokens)]
                assert each.logprobs == whole.logprobs[: len(each.tokens)]


@pytest.mark.parametrize("name", COUNTING)
def test_targets_of_unlike_lengths_are_one_run(name: str, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule, seen = Schedule(load(name)), []
    decode = UnequalRows.decode

    def counted(rows: UnequalRows, tokens: Any) -> Any:
        seen.append(tuple(rows.cache.lengths))
        return decode(rows, tokens)

    monkeypatch.setattr(UnequalRows, "decode", counted)
    for length, beams in ((20, 1), (9, 2), (31, 1)):
        schedule.add(sources(length)[0].tolist(), num_beams=beams, max_new_tokens=12, eos_token_id=[])
        schedule.scheduler.step()
        schedule.scheduler.step()
    steps = schedule.scheduler.counts.steps
    assert seen == [(1,), (2,), (3, 1, 1), (4, 2, 2), (5, 1, 3, 3)], "a row that joins stands before beams"
    schedule.run()
    assert len(seen) == schedule.scheduler.counts.steps - 1 > steps


@pytest.fixture
def older(tmp_path: Path) -> Callable[[Path], edgellm.EncoderDecoderModel]:
    """A package as it was before graphs counted by row, as far as its manifest goes."""

    def opened(package: Path) -> edgellm.EncoderDecoderModel:
        shutil.copytree(package, tmp_path / "older")
        file = tmp_path / "older" / "edgellm.json"
        content = json.loads(file.read_text())
        assert content.pop("counts_by_row") is True
        file.write_text(json.dumps(content))
        model = edgellm.load(tmp_path / "older", threads=1)
        assert isinstance(model, edgellm.EncoderDecoderModel)
        return model

    return opened


def test_older_packages_run_what_began_together(
    package: Callable[..., Path], older: Callable[[Path], edgellm.EncoderDecoderModel]
) -> None:
    model = older(package("t5"))
    schedule = Schedule(model)
    texts = [source.tolist() for source in sources(20, 9, 14)]
    for source in texts:
        schedule.add(source, max_new_tokens=9, **FREE)
        schedule.scheduler.step()
    groups = schedule.scheduler._engine._groups  # type: ignore[union-attr]
    assert [type(group) for group, _ in groups] == [Cohort] * 3
    for source, found in zip(texts, schedule.run(), strict=True):
        assert found.tokens == model.generate(source, max_new_tokens=9, **FREE).tokens


# Memory, and how much is read at once


def test_sources_count_as_memory(load: Load) -> None:
    model, source = load("t5"), sources(60)[0].tolist()
    assert model.manifest.model.source_tokens(60) == 60, "of as many heads, in as many layers"
    with Engine(model, max_cache_bytes=100 * model.manifest.model.cache.bytes_per_token()) as engine:
        found = engine.submit(source, max_new_tokens=50, **FREE).result()
        assert (len(found.tokens), found.finish_reason) == (14, "length")  # a quarter of it is for beginnings
        assert found.tokens == model.generate(source, max_new_tokens=14, **FREE).tokens
        with pytest.raises(
            MemoryBudgetError, match="2 rows begin with 61 tokens each, and the engine's memory holds 75"
        ):
            engine.submit(source, num_beams=2)


def test_a_source_of_half_the_numbers_is_twice_as_many_tokens(load: Load) -> None:
    """A target's cache may be loaded as bfloat16, a source's stays float32."""
    assert load("t5", "fp32", kv_cache="bfloat16").manifest.model.source_tokens(60) == 120


def test_sequences_make_room_for_others_and_their_sources(load: Load) -> None:
    schedule = Schedule(load("t5"), tokens=160)
    texts = [source.tolist() for source in sources(40, 38, 36)]
    for source in texts:
        schedule.add(source, max_new_tokens=60, **FREE)
    for source, found in zip(texts, schedule.run(), strict=True):
        assert found.tokens == load("t5").generate(source, max_new_tokens=60, **FREE).tokens
    assert schedule.scheduler.counts.preemptions > 0


def test_answers_go_on_between_sources(load: Load) -> None:
    """Those that are read between two steps are not many."""
    schedule = Schedule(load("t5"))
    for source in sources(100, 100, 100):
        schedule.add(source.tolist(), max_new_tokens=9, **FREE)
    running = []
    for _ in range(2):
        schedule.scheduler.step()
        running.append(schedule.scheduler.running)
    assert running == [2, 3]


def test_places_are_zeros_behind_their_sources(load: Load) -> None:
    """Whatever lay there: a mask hides numbers, but not what is none."""
    model = load("t5")
    engine = model.new_engine()
    for length in (30, 20):
        list(engine.read(np.array([0]), sources(length)[0]))
    places = engine._groups[0][0].sources
    assert {tensor[0, :, 20:30].any() for tensor in places.tensors(range(1)).values()} == {np.True_}
    engine.drop([0])
    engine.decode(np.array([5]))
    assert {tensor[0, :, 20:].any() for tensor in places.tensors(range(1)).values()} == {np.False_}
