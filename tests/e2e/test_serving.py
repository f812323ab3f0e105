"""Many requests at once: each gets what it gets alone, however they come, go, wait for memory and fail."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgellm
import edgellm_export
from comparison import prompt
from edgellm.decoding import step as advance
from edgellm.errors import InputError, MemoryBudgetError, OptionError, ProviderError, QueueFullError, ServingError
from edgellm.ort.kernels import library
from edgellm.serving import Answer, AsyncModel, Engine
from edgellm.serving.prefixes import BLOCK, PrefixCache
from edgellm.serving.scheduler import packed
from families import BY_NAME, make_model, save_checkpoint
from schedule import FREE, Schedule, numbers

needs_kernels = pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")
KINDS: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "seed": 3},
    {"do_sample": True, "seed": 4, "num_return_sequences": 2},
    {"num_beams": 3, "num_return_sequences": 2},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
]
Package = Callable[..., Path]


@pytest.fixture(params=["llama", "gemma2", "qwen3", "deepseek_v2", "gemma3n"])
def model(request: pytest.FixtureRequest, package: Package) -> edgellm.Model:
    return edgellm.load(package(request.param, "int8"), threads=2, prefill_chunk=16)


@needs_kernels
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(
        st.tuples(st.integers(1, 65), st.sampled_from(KINDS), st.integers(1, 30), st.integers(0, 6)),
        min_size=1,
        max_size=7,
    ),
    rows=st.integers(3, 8),
    tokens=st.sampled_from([300, 500, 100_000]),
    prefix_bytes=st.sampled_from([0, 1 << 17, 1 << 24]),
)
def test_each_request_gets_what_it_gets_alone(
    model: edgellm.Model, asked: list[tuple[int, dict[str, Any], int, int]], rows: int, tokens: int, prefix_bytes: int
) -> None:
    """To the last bit, with what was read before for others, and where a sequence had to make room in between."""
    ids = prompt("llama", 100).tolist()  # all begin alike
    schedule = Schedule(model, rows, tokens, prefix_bytes)
    for length, kind, new, wait in asked:
        schedule.add(ids[:length], max_new_tokens=new, **FREE, **kind)
        for _ in range(wait):
            schedule.scheduler.step()
    for (length, kind, new, _), found in zip(asked, schedule.run(), strict=True):
        assert numbers(found) == numbers(model.generate(ids[:length], max_new_tokens=new, **FREE, **kind))


@pytest.fixture
def long_model(shared: Callable[..., Path]) -> edgellm.Model:
    """With room for 1,024 tokens."""

    def make(path: Path) -> None:
        reference = make_model(BY_NAME["llama"])
        reference.config.max_position_embeddings = 1024
        save_checkpoint(reference, path.parent / "long-llama-checkpoint")
        options: Any = {"precision": "int8", "verify_quality": False, "calibrate": False}
        edgellm_export.export(path.parent / "long-llama-checkpoint", path, **options)

    return edgellm.load(shared("packages/long-llama", make), threads=2, prefill_chunk=16)


@needs_kernels
def test_sequences_make_room_and_go_on(long_model: edgellm.Model) -> None:
    schedule = Schedule(long_model, tokens=160)
    texts = [prompt("llama", 40, seed).tolist() for seed in range(3)]
    for ids in texts:
        schedule.add(ids, max_new_tokens=80, **FREE)
    found = schedule.run()
    assert schedule.scheduler.counts.preemptions > 0
    assert schedule.scheduler.counts.read_tokens == schedule.scheduler.counts.prompt_tokens == 3 * 40
    for ids, each in zip(texts, found, strict=True):
        assert numbers(each) == numbers(long_model.generate(ids, max_new_tokens=80, **FREE))


def test_no_answer_waits_for_more_than_a_piece_of_a_prompt(long_model: edgellm.Model) -> None:
    schedule = Schedule(long_model)
    first = schedule.add([5, 6, 7], max_new_tokens=60, **FREE)
    schedule.scheduler.step()
    schedule.add(prompt("llama", 100).tolist(), max_new_tokens=4, **FREE)  # seven pieces of 16
    for step in range(1, 8):
        schedule.scheduler.step()
        assert len(first._pieces) == 1 + step
    assert len(schedule.answers[1]._pieces) == 1


@needs_kernels
def test_what_many_begin_with_is_read_once(long_model: edgellm.Model) -> None:
    schedule = Schedule(long_model)
    ids = prompt("llama", 2 * BLOCK + 20).tolist()
    for tail in ([7], [8, 9], [10]):
        schedule.add([*ids, *tail], max_new_tokens=3, **FREE)
        schedule.run()
    assert schedule.scheduler.counts.reused_tokens == 2 * 2 * BLOCK
    grown = [*ids, 7, *schedule.answers[0].result().tokens, *range(5, 50)]
    schedule.add(grown, max_new_tokens=3, **FREE)
    assert numbers(schedule.run()[-1]) == numbers(long_model.generate(grown, max_new_tokens=3, **FREE))


def test_known_beginnings_go_the_least_recently_used_first() -> None:
    block = np.zeros((2, 1, BLOCK, 1), np.float32)
    cache = PrefixCache(3 * block.nbytes)
    texts = [np.arange(BLOCK * 2) + 1000 * i for i in range(3)]
    cache.add(texts[0], lambda start, stop: block + start)
    cache.add(texts[1], lambda start, stop: block)
    assert [len(cache.find(text, 1000)) for text in texts] == [1, 2, 0], "the last block of the older one went"
    cache.find(texts[0], 1000)
    cache.add(texts[2], lambda start, stop: block)
    assert [len(cache.find(text, 1000)) for text in texts] == [1, 0, 2]
    assert cache.nbytes == 3 * block.nbytes
    assert len(cache.find(texts[2], BLOCK)) == 1
    cache.add(np.arange(BLOCK * 5) + 7, lambda start, stop: block)
    assert len(cache.find(np.arange(BLOCK * 5) + 7, 1000)) == 3, "as much as fits, from the beginning"
    PrefixCache(0).add(texts[0], lambda start, stop: block)


def test_a_block_is_known_by_what_is_before_it_too() -> None:
    cache, block = PrefixCache(1 << 20), np.zeros((2, 1, BLOCK, 1), np.float32)
    first, other, second = (np.arange(BLOCK) + start for start in (0, 1000, 2000))
    cache.add(np.concatenate([first, second]), lambda start, stop: block)
    cache.add(other, lambda start, stop: block)
    assert len(cache.find(np.concatenate([first, second]), 1000)) == 2
    assert len(cache.find(np.concatenate([other, second]), 1000)) == 1
    assert cache.find(second, 1000) == []


def test_rows_that_left_are_replaced_by_the_last_ones() -> None:
    assert packed([True, False, True, False, True]) == [0, 4, 2]
    assert packed([False, False]) == []
    assert packed([True, True]) == [0, 1]


# What goes wrong


def test_a_run_that_fails_costs_no_answer(model: edgellm.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Schedule(model)
    texts = [prompt("llama", 20 + seed, seed).tolist() for seed in range(4)]
    for ids in texts:
        schedule.add(ids, max_new_tokens=12, **FREE)
    failed, decode = [], type(schedule.scheduler._engine).decode

    def failing(engine: Any, tokens: Any) -> Any:
        if len(tokens) > 2:
            failed.append(len(tokens))
            raise ProviderError("no memory")
        return decode(engine, tokens)

    monkeypatch.setattr(type(schedule.scheduler._engine), "decode", failing)
    found = schedule.run()
    monkeypatch.undo()
    assert failed == [3], "half as many rows are read again, until these have ended"
    for ids, each in zip(texts, found, strict=True):
        assert each.tokens == model.generate(ids, max_new_tokens=12, **FREE).tokens


def test_a_request_that_always_fails_fails_alone(model: edgellm.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Schedule(model)
    good, bad = (schedule.add([5, 6, last], max_new_tokens=5, **FREE) for last in (7, 8))
    read = type(schedule.scheduler._engine).read

    def failing(engine: Any, tokens: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        if tokens[2] == 8:
            raise ProviderError("no such number")
        yield from read(engine, tokens, *arguments, **options)

    monkeypatch.setattr(type(schedule.scheduler._engine), "read", failing)
    while not schedule.scheduler.idle:
        schedule.scheduler.step()
    assert len(good.result().tokens) == 5
    with pytest.raises(ProviderError, match="no such number"):
        bad.result()


def test_an_error_that_nobody_expects_ends_its_request_alone(
    model: edgellm.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first token: the job is then in no list of the scheduler's."""
    schedule = Schedule(model)
    good, bad = (schedule.add([5, 6, last], max_new_tokens=5, **FREE) for last in (7, 8))

    def failing(sequences: Sequence[Any], logits: Any) -> Any:
        if sequences[0].ids()[2] == 8:
            raise IndexError("a bug")
        return advance(sequences, logits)

    monkeypatch.setattr("edgellm.serving.scheduler.step", failing)
    while not schedule.scheduler.idle:
        schedule.scheduler.step()
    assert len(good.result(0).tokens) == 5
    with pytest.raises(IndexError, match="a bug"):
        bad.result(0)


def test_those_who_left_and_whose_time_is_over(long_model: edgellm.Model) -> None:
    schedule = Schedule(long_model, rows=2)
    left, late, beams, stays = (
        schedule.add([5, 6, 7], **{**FREE, "max_new_tokens": 50, **options})
        for options in ({}, {"max_time": 0.2}, {"num_beams": 2}, {})
    )
    unread = schedule.add(prompt("llama", 60).tolist(), max_new_tokens=50, max_time=0.2, **FREE)
    for _ in range(4):
        schedule.scheduler.step()
    left.cancel()
    beams.cancel()
    time.sleep(0.3)
    schedule.run()
    assert (left.result().finish_reason, len(left.result().tokens)) == ("cancelled", 4)
    assert [each.result().finish_reason for each in (late, beams, unread)] == ["time", "cancelled", "time"]
    assert len(late.result().tokens) >= 3
    assert unread.result().tokens == ()
    assert stays.result().tokens == long_model.generate([5, 6, 7], max_new_tokens=50, **FREE).tokens
    assert [piece.finish_reason for piece in left][-2:] == [None, "cancelled"]
    assert [piece.finish_reason for piece in unread] == ["time"]


# The engine with its thread


def test_pieces_are_those_of_stream(model: edgellm.Model) -> None:
    options = {"max_new_tokens": 9, **FREE}
    with Engine(model) as engine:
        answer = engine.submit([5, 6, 7], **options)
        assert [(piece.text, piece.tokens, piece.finish_reason) for piece in answer] == [
            (piece.text, piece.tokens, piece.finish_reason) for piece in model.stream([5, 6, 7], **options)
        ]
        assert [piece.tokens for piece in answer] == [(token,) for token in answer.result().tokens]
        assert answer.result().timing.new_tokens == 9
        assert engine.stats.new_tokens == 9


def test_threads_ask_at_once(model: edgellm.Model) -> None:
    found: dict[int, edgellm.Generation] = {}
    texts = [prompt("llama", 5 + 3 * seed, seed).tolist() for seed in range(12)]
    with Engine(model, max_rows=4) as engine:

        def ask(number: int) -> None:
            found[number] = engine.submit(texts[number], max_new_tokens=6 + number, **FREE).result()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, ids in enumerate(texts):
        assert found[number].tokens == model.generate(ids, max_new_tokens=6 + number, **FREE).tokens


def test_asyncio(model: edgellm.Model) -> None:
    async def ask(engine: Engine, last: int) -> tuple[list[int], tuple[int, ...]]:
        answer = engine.submit([5, 6, last], max_new_tokens=8, **FREE)
        pieces = [piece.tokens[0] async for piece in answer]
        return pieces, (await answer).tokens

    async def all_of_them() -> list[tuple[list[int], tuple[int, ...]]]:
        with Engine(model) as engine:
            return await asyncio.gather(*(ask(engine, last) for last in range(10, 20)))

    for last, (pieces, tokens) in zip(range(10, 20), asyncio.run(all_of_them()), strict=True):
        assert tuple(pieces) == tokens == model.generate([5, 6, last], max_new_tokens=8, **FREE).tokens


def test_a_model_for_asyncio(long_model: edgellm.Model) -> None:
    async def main() -> None:
        options: dict[str, Any] = {"max_new_tokens": 1000, **FREE}
        async with AsyncModel(long_model, max_rows=4) as model:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(model.generate([5, 6, 7], **options), 0.02)
            async for piece in (pieces := model.stream([5, 6, 7], **options)):
                assert len(piece.tokens) == 1
                break
            await pieces.aclose()
            model.stream([5, 6, 7], **options)  # and one that nobody reads
            with pytest.raises(OptionError, match="cannot be streamed"):
                model.stream([5, 6], num_beams=2)
            found = await model.generate([5, 6, 7], max_new_tokens=5, **FREE)
            assert found.tokens == long_model.generate([5, 6, 7], max_new_tokens=5, **FREE).tokens
            assert model.engine.stats.new_tokens < 1000, "those that nobody waits for have ended"

    asyncio.run(main())


def test_an_engine_that_is_closed(long_model: edgellm.Model) -> None:
    engine = Engine(long_model, max_rows=1)
    runs, waits = (engine.submit([5, 6, 7], max_new_tokens=1000, **FREE) for _ in range(2))
    next(iter(runs))
    engine.close(finish=False)
    assert runs.result(0).finish_reason == "cancelled"
    assert runs.result(0).tokens
    with pytest.raises(ServingError, match="closed before the request's turn came"):
        waits.result(0)
    with pytest.raises(ServingError, match="closed"):
        engine.submit([5, 6, 7])
    with Engine(long_model) as engine:
        waited = engine.submit([5, 6, 7], max_new_tokens=20, **FREE)
    assert len(waited.result(0).tokens) == 20


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"num_beams": 5}, OptionError, "5 beams or samples, expected at most the engine's 4 rows"),
        ({"overflow": "shift"}, OptionError, "for one sequence by itself"),
        ({"max_new_tokens": 0}, OptionError, "max_new_tokens"),
    ],
)
def test_what_cannot_be_asked(model: edgellm.Model, options: dict[str, Any], error: type[Exception], said: str) -> None:
    with (
        Engine(model, max_rows=4, max_cache_bytes=100 * model.info.cache_bytes_per_token) as engine,
        pytest.raises(error, match=said),
    ):
        engine.submit([5, 6, 7], **options)


def test_an_answer_ends_where_memory_does(long_model: edgellm.Model) -> None:
    with Engine(long_model, max_cache_bytes=100 * long_model.info.cache_bytes_per_token) as engine:
        found = engine.submit([5, 6, 7], max_new_tokens=500, **FREE).result()
        assert (len(found.tokens), found.finish_reason) == (72, "length")
        assert found.tokens == long_model.generate([5, 6, 7], max_new_tokens=72, **FREE).tokens
        with pytest.raises(MemoryBudgetError, match="begin with 80 tokens each, and the engine's memory holds 75"):
            engine.submit(list(range(5, 85)))


def test_nobody_waits_for_ever(long_model: edgellm.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run fails, and no other engine can be made; and where an end cannot be told."""
    engine = Engine(long_model)
    scheduler, asked = engine._scheduler, engine.submit([5, 6, 7], max_new_tokens=900, **FREE)
    while not engine.stats.running:
        time.sleep(0.01)

    def fail(*_: Any) -> Any:
        raise ProviderError("gone")

    monkeypatch.setattr(scheduler, "_new_engine", fail)
    monkeypatch.setattr(scheduler._engine, "decode", fail)
    with pytest.raises(ProviderError, match="gone"):
        asked.result(20)
    engine._thread.join(20)
    with pytest.raises(ServingError, match="closed"):
        engine.submit([5, 6, 7])
    monkeypatch.undo()
    with Engine(long_model) as other:
        monkeypatch.setattr(Answer, "_timing", fail)
        with pytest.raises(ProviderError, match="gone"):
            other.submit([5, 6, 7], max_new_tokens=2).result(20)
        monkeypatch.undo()
        assert len(other.submit([5, 6, 7], max_new_tokens=2, **FREE).result(20).tokens) == 2


def test_what_an_engine_cannot_be_given(model: edgellm.Model) -> None:
    for name in ("max_rows", "max_cache_bytes", "max_waiting"):
        with pytest.raises(OptionError, match=f"{name} is 0, expected a whole number from 1"):
            Engine(model, **{name: 0})
    with Engine(model) as engine, pytest.raises(InputError, match="one prompt"):
        engine.submit([[1, 2], [3]])
    with Engine(model) as engine, pytest.raises(OptionError, match="cannot be streamed"):
        iter(engine.submit([5, 6], num_beams=2, max_new_tokens=2))


def test_a_queue_that_is_full(long_model: edgellm.Model) -> None:
    with Engine(long_model, max_rows=1, max_waiting=2) as engine:
        answers = [engine.submit([5, 6, 7], max_new_tokens=300, **FREE)]
        while not engine.stats.running:
            time.sleep(0.01)
        answers += [engine.submit([5, 6, 7], max_new_tokens=1, **FREE) for _ in range(2)]
        with pytest.raises(QueueFullError, match="2 requests are waiting already"):
            engine.submit([5, 6, 7])
        answers[0].cancel()
        assert len(answers[2].result().tokens) == 1


def test_encoder_decoders(package: Package, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    edgellm_export.export(tiny("encoder-decoder"), tmp_path / "t5", precision="fp32", verify_quality=False)
    model = edgellm.load(tmp_path / "t5", threads=1)
    sources = [[5, 6, 7, 1], [9, 8, 1], [20, 30, 40, 50, 60, 1]]
    with Engine(model) as engine:
        answers = [engine.submit(source, max_new_tokens=9, num_beams=1 + i % 2) for i, source in enumerate(sources)]
        for i, (source, answer) in enumerate(zip(sources, answers, strict=True)):
            assert answer.result().tokens == model.generate(source, max_new_tokens=9, num_beams=1 + i % 2).tokens


def test_nothing_is_left_of_an_engine(model: edgellm.Model) -> None:
    gc.collect()
    before = threading.active_count()
    for _ in range(3):
        with Engine(model) as engine:
            engine.submit([5, 6, 7], max_new_tokens=2).result()
    assert threading.active_count() == before
