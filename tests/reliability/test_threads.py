"""One model used from many threads, several models in one process, and what is left when they are gone."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

import edgellm
import soak_calls
from edgellm.errors import SessionError
from edgellm.loading import load_as

THREADS = 8
VARIANTS = 2
LONG: dict[str, Any] = {"max_new_tokens": 60, "eos_token_id": []}
# Calls that end when the clock says so, or that measure the process, prove nothing here.
CALLS = [call for call in soak_calls.CALLS if call.__name__ not in ("cancelled", "out_of_time", "collected")]


@pytest.fixture(scope="module")
def models(packages: Path) -> soak_calls.Models:
    return soak_calls.load(packages)


@pytest.fixture
def model(models: soak_calls.Models) -> edgellm.Model:
    return models.decoders[0]


@pytest.fixture
def often_switched() -> Iterator[None]:
    """Python changes from thread to thread a hundred times more often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 100)
    yield
    sys.setswitchinterval(before)


def together(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Each in a thread of its own, begun at the same moment; their results."""
    begin = threading.Barrier(len(works))

    def work(one: Callable[[], Any]) -> Any:
        begin.wait()
        return one()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(work, one) for one in works]]


@pytest.mark.usefixtures("often_switched")
def test_many_threads_get_what_one_gets(models: soak_calls.Models) -> None:
    """Every kind of call on every kind of model, in another order in each thread."""
    calls = [(call, variant) for call in CALLS for variant in range(VARIANTS)]

    def result(item: tuple[soak_calls.Call, int]) -> str:
        call, variant = item
        return repr(call(models, Random(f"{call.__name__} {variant}")))

    expected = {item: result(item) for item in calls}

    def all_of_them(thread: int) -> dict[Any, str]:
        return {item: result(item) for item in Random(thread).sample(calls, len(calls))}

    for found in together([lambda thread=thread: all_of_them(thread) for thread in range(THREADS)]):  # type: ignore[misc]
        assert found == expected


def test_a_stream_may_change_threads(model: edgellm.Model) -> None:
    expected = model.generate("hello", **LONG).tokens
    stream = model.stream("hello", **LONG)
    tokens = [next(stream).tokens[0]]
    while len(tokens) < len(expected):
        (more,) = together([lambda: next(stream).tokens[0]])
        tokens.append(more)
    assert tuple(tokens) == expected


@pytest.mark.usefixtures("often_switched")
def test_two_threads_in_one_stream(model: edgellm.Model) -> None:
    """Python refuses the second one while the first is inside, and no token is lost or doubled."""
    expected = model.generate("hello", **LONG).tokens
    stream = model.stream("hello", **LONG)
    refused: list[str] = []

    def take() -> list[int]:
        found: list[int] = []
        while True:
            try:
                found += next(stream).tokens
            except ValueError as error:
                refused.append(str(error))
            except StopIteration:
                return found

    tokens = [token for found in together([take] * 4) for token in found]
    assert sorted(tokens) == sorted(expected)
    assert set(refused) <= {"generator already executing"}
    assert model.generate("hello", **LONG).tokens == expected


def test_a_stream_that_is_inside_the_model_refuses_a_second_thread(model: edgellm.Model) -> None:
    inside, leave = threading.Event(), threading.Event()

    def progress(done: int, total: int) -> None:
        inside.set()
        leave.wait(10)

    stream = model.stream("hello", progress=progress, **LONG)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, stream)
        assert inside.wait(10)
        with pytest.raises(ValueError, match="generator already executing"):
            next(stream)
        leave.set()
        tokens = first.result().tokens + tuple(token for piece in stream for token in piece.tokens)
    assert tokens == model.generate("hello", **LONG).tokens


def test_a_session_refuses_a_second_thread(model: edgellm.Model) -> None:
    inside, leave = threading.Event(), threading.Event()

    def progress(done: int, total: int) -> None:
        inside.set()
        leave.wait(10)

    session = model.session()
    other_calls: list[Callable[[], object]] = [
        lambda: session.generate("you"), lambda: next(session.stream("you")), lambda: session.trim(0), session.fork,
        lambda: session.prefill("you"), session.reset, session.close,
    ]  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: session.generate("hello", progress=progress, **LONG))
        assert inside.wait(10)
        for call in other_calls:
            with pytest.raises(SessionError, match="in use by another call"):
                call()
        leave.set()
        assert first.result().tokens == model.generate("hello", **LONG).tokens
    session.close()


def test_cancelling_one_call_leaves_the_others_alone(model: edgellm.Model) -> None:
    expected = model.generate("hello", **LONG).tokens
    cancel = threading.Event()
    cancel.set()
    works = [lambda: model.generate("hello", **LONG)] * 3 + [lambda: model.generate("hello", cancel=cancel, **LONG)] * 3
    found = together(works)
    assert [generation.tokens for generation in found[:3]] == [expected] * 3
    assert [generation.finish_reason for generation in found[3:]] == ["cancelled"] * 3


def test_a_seed_means_the_same_in_every_thread(model: edgellm.Model) -> None:
    works = [
        lambda seed=seed: model.generate("hello", do_sample=True, seed=seed, **LONG).tokens for seed in range(4)
    ] * 2
    found = together(works)
    assert found[:4] == found[4:]
    assert len(set(found)) == 4


def test_models_are_loaded_in_several_threads_at_once(packages: Path) -> None:
    names = ["decoder", "decoder-int8", "encoder-decoder", "decoder"]
    found = together(
        [lambda name=name: edgellm.load(packages / name).generate("hello", **LONG).tokens for name in names]
    )  # type: ignore[misc]
    assert found == [edgellm.load(packages / name).generate("hello", **LONG).tokens for name in names]  # type: ignore[union-attr]
    assert found[0] == found[3]


def test_one_package_loaded_twice_with_other_threads(packages: Path, model: edgellm.Model) -> None:
    """Each has threads and a cache of its own, and the weights are mapped, so they are in memory once."""
    twice = [load_as(edgellm.Model, packages / "decoder", threads=threads) for threads in (1, 2)]
    assert [each.info.threads for each in twice] == [1, 2]
    expected = model.generate("hello", **LONG).tokens
    streams = [each.stream("hello", **LONG) for each in twice]
    assert [tuple(p.tokens[0] for p in pair) for pair in zip(*streams, strict=True)] == [(t, t) for t in expected]


# What is left


def tasks() -> set[str]:
    return set(os.listdir("/proc/self/task"))


def mapped(package: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(package.resolve()))


def test_a_dropped_model_leaves_nothing(packages: Path, tmp_path: Path) -> None:
    package = shutil.copytree(packages / "decoder", tmp_path / "package")
    threads, handles = tasks(), os.listdir("/proc/self/fd")
    model = load_as(edgellm.Model, package, threads=3)
    model.generate("hello", **LONG)
    assert len(tasks() - threads) == 2  # and the caller's own
    assert mapped(package)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert tasks() == threads
    assert os.listdir("/proc/self/fd") == handles
    assert not mapped(package)


def test_a_stream_keeps_what_it_needs_of_a_dropped_model(packages: Path) -> None:
    expected = load_as(edgellm.Model, packages / "decoder").generate("hello", **LONG).tokens
    threads = tasks()
    stream = load_as(edgellm.Model, packages / "decoder", threads=3).stream("hello", **LONG)
    first = next(stream)
    gc.collect()
    assert len(tasks() - threads) == 2
    assert (*first.tokens, *(token for piece in stream for token in piece.tokens)) == expected
    del stream
    gc.collect()
    assert tasks() == threads


def test_a_model_dropped_by_another_thread(packages: Path) -> None:
    held = [load_as(edgellm.Model, packages / "decoder", threads=2)]
    threads = tasks()
    together([held.clear])
    gc.collect()
    assert len(threads - tasks()) == 1
