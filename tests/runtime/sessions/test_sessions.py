"""Sessions: what they keep, what they compute, and what they refuse, on a tiny model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from edgellm import GenerationSession, InputError, MemoryBudgetError, OptionError, SessionError
from edgellm.engines.cached import chunks
from edgellm.engines.in_place import decoder as engine
from edgellm.engines.in_place.device_cache import DeviceCache
from tiny_package import TinyConfig

PackageMaker = Callable[[TinyConfig], Path]

LONG = TinyConfig(long_from=24)
WITHOUT_END: dict[str, Any] = {"eos_token_id": []}
TEXT = list(range(30))


class Counting:
    """A progress hook that counts the tokens that were read."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.steps.append((done, total))

    @property
    def runs(self) -> int:
        return len(self.steps)


@pytest.fixture
def fresh(package: Path) -> edgellm.Model:
    return edgellm.load(package, threads=1, prefill_chunk=2)


def expected(model: edgellm.Model, prompt: list[int], **options: Any) -> tuple[int, ...]:
    model.reset()
    return model.generate(prompt, **WITHOUT_END, **options).tokens


# What is kept


def test_turns_compute_only_what_is_new(fresh: edgellm.Model) -> None:
    session = fresh.session()
    first = session.generate(TEXT, max_new_tokens=5, **WITHOUT_END)
    assert first.tokens == expected(fresh, TEXT, max_new_tokens=5)
    assert session.tokens == (*TEXT, *first.tokens[:-1])
    assert session.reusable_tokens == 34
    counting = Counting()
    turn = [*TEXT, *first.tokens, 8, 9, 10]
    second = session.generate(turn, max_new_tokens=5, progress=counting, **WITHOUT_END)
    assert counting.steps == [(36, 38), (38, 38)]
    assert second.tokens == expected(fresh, turn, max_new_tokens=5)


def test_a_prompt_that_differs_in_the_middle(fresh: edgellm.Model) -> None:
    session = fresh.session()
    session.generate(TEXT, max_new_tokens=2, **WITHOUT_END)
    other, counting = [*TEXT[:20], 99, 98, 97, 96], Counting()
    assert session.generate(other, max_new_tokens=6, progress=counting, **WITHOUT_END).tokens == expected(
        fresh, other, max_new_tokens=6
    )
    assert counting.runs == 2


def test_sessions_and_the_model_do_not_disturb_each_other(fresh: edgellm.Model) -> None:
    one, two = fresh.session(), fresh.session()
    one.generate(TEXT, max_new_tokens=3, **WITHOUT_END)
    held = one.tokens
    two.generate([7, 7, 7], max_new_tokens=3, **WITHOUT_END)
    fresh.generate([8, 8], max_new_tokens=3)
    fresh.reset()
    assert one.tokens == held
    counting = Counting()
    one.generate([*held, 5, 6], max_new_tokens=1, progress=counting)
    assert counting.runs == 1


def test_streams_and_chats(fresh: edgellm.Model) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    session = fresh.session()
    held = session.prefill(messages[:1])
    assert held == len(session.tokens) > 5
    counting = Counting()
    answer = session.chat(messages, max_new_tokens=4, progress=counting, **WITHOUT_END)
    assert answer.tokens == fresh.chat(messages, max_new_tokens=4, **WITHOUT_END).tokens
    assert counting.runs == len(chunks(held, answer.prompt_tokens, 2))
    pieces = list(session.stream_chat(messages, max_new_tokens=4, **WITHOUT_END))
    assert tuple(token for piece in pieces for token in piece.tokens) == answer.tokens
    pieces = list(session.stream("Hi", max_new_tokens=4, **WITHOUT_END))
    assert "".join(piece.text for piece in pieces) == fresh.generate("Hi", max_new_tokens=4, **WITHOUT_END).text


def test_trim(fresh: edgellm.Model) -> None:
    session = fresh.session()
    session.generate(TEXT, max_new_tokens=5, **WITHOUT_END)
    session.trim(10)
    assert session.tokens == tuple(TEXT[:10])
    session.trim(50)
    assert len(session.tokens) == 10
    other = [*TEXT[:10], 5, 6, 7]
    assert session.generate(other, max_new_tokens=5, **WITHOUT_END).tokens == expected(fresh, other, max_new_tokens=5)
    session.trim(0)
    assert session.tokens == ()
    assert session.generate(TEXT, max_new_tokens=5, **WITHOUT_END).tokens == expected(fresh, TEXT, max_new_tokens=5)
    for wrong in (-1, 1.5, True, "3"):
        with pytest.raises(InputError, match="how many tokens to keep"):
            session.trim(wrong)  # type: ignore[arg-type]


def test_forks_are_independent_both_ways(fresh: edgellm.Model) -> None:
    session = fresh.session()
    session.prefill(TEXT)
    forks = [session.fork() for _ in range(3)]
    prompts = [[*TEXT, 40 + i, 50 + i, 60 + i] for i in range(4)]
    everybody = [session, *forks]
    streams = [s.stream(p, max_new_tokens=12, **WITHOUT_END) for s, p in zip(everybody, prompts, strict=True)]
    found: list[list[int]] = [[] for _ in streams]
    for pieces in zip(*streams, strict=True):  # step by step in turn: memory that they shared would show
        for tokens, piece in zip(found, pieces, strict=True):
            tokens += piece.tokens
    assert [tuple(tokens) for tokens in found] == [expected(fresh, p, max_new_tokens=12) for p in prompts]
    forks[0].reset()
    forks[1].trim(3)
    session.close()
    counting = Counting()
    forks[2].generate([*TEXT, 1, 2], max_new_tokens=3, progress=counting)
    assert counting.runs == 1


def test_a_fork_has_the_same_settings(fresh: edgellm.Model) -> None:
    session = fresh.session(max_bytes=64 * fresh.info.cache_bytes_per_token, reuse_generated=True)
    session.metadata |= {"name": "x", "list": [1]}
    session.prefill(TEXT)
    fork = session.fork()
    assert fork.nbytes <= fork.max_bytes == session.max_bytes
    assert (fork.max_bytes, fork.reuse_generated, fork.metadata) == (session.max_bytes, True, session.metadata)
    fork.metadata["name"] = "y"
    fork.metadata["list"].append(2)
    assert session.metadata == {"name": "x", "list": [1]}
    assert fork.tokens == session.tokens


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True, "num_return_sequences": 3, "seed": 1}])
def test_several_sequences_leave_the_prompt(fresh: edgellm.Model, options: dict[str, Any]) -> None:
    session = fresh.session()
    found = session.generate(TEXT, max_new_tokens=6, **WITHOUT_END, **options)
    fresh.reset()
    assert found.sequences == fresh.generate(TEXT, max_new_tokens=6, **WITHOUT_END, **options).sequences
    assert session.tokens == tuple(TEXT)
    one_row = session.nbytes
    assert one_row == 64 * fresh.info.cache_bytes_per_token
    counting = Counting()
    turn = [*TEXT, 4, 5]
    again = session.generate(turn, max_new_tokens=6, progress=counting, **WITHOUT_END)
    assert counting.runs == 1
    assert again.tokens == expected(fresh, turn, max_new_tokens=6)
    assert session.nbytes == one_row


def test_prompt_lookup_leaves_no_drafts(fresh: edgellm.Model) -> None:
    """A stream that is closed while drafted tokens are in the cache, which nobody has chosen."""
    session, prompt = fresh.session(), [5, 6] * 10
    only = {"suppress_tokens": [token for token in range(264) if token not in (5, 6)], "prompt_lookup": True}
    found = session.generate(prompt, max_new_tokens=20, **only, **WITHOUT_END)
    assert found.timing.drafted_tokens > 5
    assert session.tokens == (*prompt, *found.tokens[:-1])
    for count in range(1, 16):
        stream = session.stream(prompt, max_new_tokens=20, **only, **WITHOUT_END)
        tokens = [next(stream).tokens[0] for _ in range(count)]
        stream.close()  # type: ignore[attr-defined]
        assert session.tokens == (*prompt, *tokens[:-1])


def test_a_table_for_long_sequences(make_package: PackageMaker) -> None:
    """LongRoPE: what is cached serves prompts that use the same table, and no others."""
    model = edgellm.load(make_package(LONG), threads=1, prefill_chunk=2)
    session, text = model.session(), list(range(100, 150))

    def runs(length: int) -> int:
        counting = Counting()
        found = session.generate(text[:length], max_new_tokens=4, progress=counting, **WITHOUT_END)
        assert found.tokens == expected(model, text[:length], max_new_tokens=4)
        return counting.runs

    assert runs(14) == 7
    assert runs(18) == 2
    assert runs(20) == 1
    assert runs(30) == 15  # now all keys are the other table's
    assert runs(40) == 5
    session.trim(10)
    assert runs(16) == 8
    assert runs(22) == 3
    assert len(session.generate(text[:22], max_new_tokens=10, **WITHOUT_END).tokens) == 10  # passes over on its way
    assert runs(32) == 5
    assert runs(20) == 10


def test_a_cancelled_prefill_keeps_what_was_read(fresh: edgellm.Model) -> None:
    session, cancel = fresh.session(), threading.Event()
    cancel_at_eight = lambda done, total: cancel.set() if done == 8 else None  # noqa: E731
    assert session.prefill(TEXT, cancel=cancel, progress=cancel_at_eight) == 8
    cancel.clear()
    counting = Counting()
    assert session.prefill(TEXT, cancel=cancel, progress=counting) == 30
    assert counting.steps[0] == (10, 30)


def test_cancelled_while_reading(fresh: edgellm.Model) -> None:
    session, cancel = fresh.session(), threading.Event()
    result = session.generate(TEXT, cancel=cancel, progress=lambda done, total: cancel.set() if done == 8 else None)
    assert (result.tokens, result.finish_reason) == ((), "cancelled")
    assert session.tokens == tuple(TEXT[:8])
    counting = Counting()
    assert session.generate(TEXT, max_new_tokens=5, progress=counting, **WITHOUT_END).tokens == expected(
        fresh, TEXT, max_new_tokens=5
    )
    assert counting.runs == 11


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_a_cache_on_a_device(
    make_package: PackageMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: Any
) -> None:
    """Forks and files of a cache that ONNX Runtime owns; without a GPU, one that it owns in main memory."""
    monkeypatch.setattr(
        engine, "open_cache", lambda layout, length, _, chunk: DeviceCache(layout, length, device, chunk)
    )
    package = make_package(TinyConfig(dtype="float16", target="cuda"))
    model = edgellm.load(package, device=device, threads=1, prefill_chunk=8)
    session = model.session(max_bytes=64 * model.info.cache_bytes_per_token)
    session.generate(TEXT, max_new_tokens=5, **WITHOUT_END)
    session.save(tmp_path / "s")
    loaded, fork, counting = model.load_session(tmp_path / "s"), session.fork(), Counting()
    fork.generate([3, 4, 5], max_new_tokens=5, num_beams=3, **WITHOUT_END)
    turn = [*session.tokens, 8, 9]
    found = loaded.generate(turn, max_new_tokens=5, progress=counting, **WITHOUT_END)
    assert found.tokens == session.generate(turn, max_new_tokens=5, **WITHOUT_END).tokens
    assert found.tokens == expected(model, turn, max_new_tokens=5)
    assert counting.runs == 1
    assert session.nbytes <= 64 * model.info.cache_bytes_per_token


# The memory budget


def test_the_budget_is_a_context(fresh: edgellm.Model) -> None:
    each = fresh.info.cache_bytes_per_token
    session = fresh.session(max_bytes=40 * each + 5)
    assert session.max_tokens == 40
    result = session.generate(TEXT, max_new_tokens=50, **WITHOUT_END)
    assert (len(result.tokens), result.finish_reason) == (10, "length")
    assert result.tokens == expected(fresh, TEXT, max_new_tokens=10)
    assert session.nbytes <= 40 * each
    held = session.tokens
    with pytest.raises(
        MemoryBudgetError, match=f"the prompt has 41 tokens, and the session's max_bytes of {40 * each + 5}"
    ):
        session.generate(list(range(41)))
    with pytest.raises(MemoryBudgetError):
        session.prefill(list(range(40)))
    assert session.tokens == held
    assert fresh.session(max_bytes=10**9).max_tokens == 96


@pytest.mark.parametrize("options", [{"num_beams": 4}, {"do_sample": True, "num_return_sequences": 4, "seed": 1}])
def test_several_sequences_share_the_budget(fresh: edgellm.Model, options: dict[str, Any]) -> None:
    each = fresh.info.cache_bytes_per_token
    session = fresh.session(max_bytes=80 * each)
    session.generate(TEXT, max_new_tokens=50, **WITHOUT_END)
    assert session.nbytes == 80 * each
    held = session.tokens
    with pytest.raises(MemoryBudgetError, match="hold 20"):
        session.generate(TEXT, **options)
    assert session.tokens == held
    most = 0

    def watch(done: int, total: int) -> None:
        nonlocal most
        most = max(most, session.nbytes)

    found = session.generate(TEXT[:10], max_new_tokens=50, progress=watch, **WITHOUT_END, **options)
    assert max(len(sequence.tokens) for sequence in found.sequences) == 10
    assert max(most, session.nbytes) <= 80 * each
    assert session.tokens == tuple(TEXT[:10])


@pytest.mark.parametrize("wrong", [0, -5, 1.5, True, "1", 100])
def test_a_budget_that_is_none(fresh: edgellm.Model, wrong: Any) -> None:
    with pytest.raises(OptionError, match="expected a whole number of bytes from"):
        fresh.session(max_bytes=wrong)


# What is refused


def test_closed(fresh: edgellm.Model) -> None:
    with fresh.session() as session:
        session.prefill(TEXT)
    session.close()
    for call in (
        lambda: session.generate("Hi"),
        lambda: session.tokens,
        session.fork,
        session.reset,
        lambda: session.nbytes,
    ):
        with pytest.raises(SessionError, match="closed"):
            call()


def test_one_call_at_a_time(fresh: edgellm.Model) -> None:
    session = fresh.session()
    stream = session.stream("Hi", max_new_tokens=5, **WITHOUT_END)
    next(stream)
    for call in (
        lambda: session.generate("Ho"), session.fork, session.reset, lambda: session.trim(1), session.close,
        lambda: session.prefill("Ho"), lambda: session.save("/nowhere"),
    ):  # fmt: skip
        with pytest.raises(SessionError, match="in use by another call"):
            call()
    assert len(list(stream)) == 4
    assert session.generate("Ho", max_new_tokens=2, **WITHOUT_END).tokens


def test_many_threads_are_refused_or_right(fresh: edgellm.Model) -> None:
    session, wanted = fresh.session(), expected(fresh, TEXT, max_new_tokens=15)
    outcomes: list[Any] = []

    def work() -> None:
        for _ in range(20):
            try:
                outcomes.append(session.generate(TEXT, max_new_tokens=15, **WITHOUT_END).tokens)
            except SessionError:
                outcomes.append(None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {outcome for outcome in outcomes if outcome is not None} == {wanted}


def test_a_list_of_prompts(fresh: edgellm.Model) -> None:
    for call in (fresh.session().generate, fresh.session().stream, fresh.session().prefill):
        with pytest.raises(InputError, match="a session is one sequence"):
            call([[1, 2], [3, 4]])  # type: ignore[arg-type]


def test_an_error_empties_the_session(fresh: edgellm.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    session = fresh.session()
    session.prefill(TEXT)

    def fails(*_: object) -> None:
        raise edgellm.ProviderError("no memory")

    monkeypatch.setattr(session._holder.engine, "decode", fails)
    with pytest.raises(edgellm.ProviderError):
        session.generate(TEXT, max_new_tokens=3, **WITHOUT_END)
    assert session.tokens == ()
    assert session.generate(TEXT, max_new_tokens=3, **WITHOUT_END).tokens == expected(fresh, TEXT, max_new_tokens=3)


def test_bad_options_change_nothing(fresh: edgellm.Model) -> None:
    session = fresh.session()
    session.prefill(TEXT)
    for wrong in ({"nonsense": 1}, {"num_beams": 0}, {"temperature": 0.5}):
        with pytest.raises(OptionError):
            session.generate([1, 2], **wrong)
    with pytest.raises(OptionError):
        session.stream([1, 2], num_beams=2)
    assert session.tokens == tuple(TEXT)
    assert isinstance(session, GenerationSession)
    assert session.generate(np.array(TEXT), max_new_tokens=1).prompt_tokens == 30
