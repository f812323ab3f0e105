"""A row that is alone in an engine reads what is foretold of it ahead; others come and go as ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import edgellm
from conftest_of_server import LONG, PackageMaker
from edgellm.serving import Engine

REPEATED = {"prompt": [5, 6, 7, 8] * 12, "max_new_tokens": 60, "prompt_lookup": True, "eos_token_id": ()}
FORCED = {"prompt": [5, 6], "max_new_tokens": 60, "choices": ["a text that leaves no choice", "b text"]}
OTHERS: list[dict[str, Any]] = [
    {"prompt": [9, 9, 9], "max_new_tokens": 7},
    {"prompt": [1] * 200, "max_new_tokens": 30, "prompt_lookup": True},
    {"prompt": [2, 3], "max_new_tokens": 20, "num_beams": 2},
    {"prompt": [4], "max_new_tokens": 25, "do_sample": True, "num_return_sequences": 2, "seed": 1},
]


@pytest.fixture(scope="module")
def model(make_package: PackageMaker) -> edgellm.Model:
    loaded = edgellm.load(make_package(replace(LONG, seed=3)), threads=1)
    assert isinstance(loaded, edgellm.Model)
    return loaded


@pytest.fixture
def runs(model: edgellm.Model, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the engines are asked for."""
    told: list[str] = []
    new_engine = model.new_engine

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            told.append(name)
            return method(*arguments)

        return call

    def make() -> Any:
        engine = new_engine()
        for name in ("decode", "verify"):
            setattr(engine, name, watched(name, getattr(engine, name)))
        return engine

    monkeypatch.setattr(model, "new_engine", make)
    return told


@pytest.mark.parametrize("asked", [REPEATED, FORCED], ids=["looked up", "forced"])
def test_a_row_alone_takes_fewer_runs(model: edgellm.Model, runs: list[str], asked: dict[str, Any]) -> None:
    given = dict(asked)
    expected = model.generate(given.pop("prompt"), **given)
    runs.clear()
    with Engine(model) as engine:
        for _ in range(2):  # the second begins with what the first has left
            found = engine.submit(**asked).result(60)
            assert (found.tokens, found.finish_reason) == (expected.tokens, expected.finish_reason)
    assert "verify" in runs
    assert len(runs) < 2 * len(expected.tokens)


@pytest.mark.parametrize("seed", range(3))
def test_others_come_and_go_beside_it(model: edgellm.Model, runs: list[str], seed: int) -> None:
    asked = [REPEATED, *OTHERS[seed:], FORCED, *OTHERS[:seed], REPEATED]
    expected = []
    for given in asked:
        options = dict(given)
        expected.append([one.tokens for one in model.generate(options.pop("prompt"), **options).sequences])
    with Engine(model, max_rows=3) as engine:
        first = engine.submit(**asked[0])
        pieces = iter(first)
        for _ in range(20):  # it is alone until now
            next(pieces)
        answers = [first, *(engine.submit(**given) for given in asked[1:])]
        assert [[one.tokens for one in answer.result(60).sequences] for answer in answers] == expected
        first = engine.submit(**REPEATED)
        next(iter(first))
        first.cancel()
        assert first.result(60).finish_reason in ("cancelled", "length")
        assert [one.tokens for one in engine.submit(**REPEATED).result(60).sequences] == expected[0]
    assert "verify" in runs
