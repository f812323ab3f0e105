"""Lines given out to workers that die at any time: each has one outcome, and a line that kills whoever has it is one
line's failure. The cluster is a fake: what it does is drawn by chance, and takes no time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from edgellm.bulk.lines import Line, Outcome
from edgellm.errors import BatchError, PackageError
from edgellm.ray import fleet as fleets
from edgellm.ray.fleet import Fleet
from edgellm.ray.worker import Ready


class RayError(Exception):
    """Of any kind."""


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


@dataclass(eq=False)
class Actor:
    """Both a worker and its methods."""

    cluster: Cluster

    @property
    def load(self) -> Actor:
        return self

    @property
    def answer(self) -> Actor:
        return self

    def options(self, **_: Any) -> Actor:
        return self

    def remote(self, asked: Any) -> Any:
        return Stream(self, list(asked)) if isinstance(asked, list) else Loading(self)


@dataclass(eq=False)
class Loading:
    actor: Actor


@dataclass(eq=False)
class Stream:
    """The answers to a portion, in any order."""

    actor: Actor
    lines: list[Line]

    def __next__(self) -> Line:
        if not self.lines:
            raise StopIteration
        cluster = self.actor.cluster
        cluster.live_on(self.actor)
        line = self.lines.pop(cluster.chance.randrange(len(self.lines)))
        if line.number in cluster.poison:
            raise RayError("a line killed it\nand more")
        return line


class Cluster:
    """What Fleet asks of Ray. `deaths`: how likely one is at each piece of news. `poison`: numbers of lines that kill.
    `refusal`: what loading ends with."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, seed: int, deaths: float, poison: Sequence[int] = (), refusal: Exception | None = None) -> None:
        self.chance, self.deaths, self.poison, self.refusal = random.Random(seed), deaths, poison, refusal
        self.actors: list[Actor] = []
        self.killed: list[Actor] = []

    def remote(self, kind: Any) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self.engaged))

    def engaged(self) -> Actor:
        self.actors.append(Actor(self))
        return self.actors[-1]

    def wait(self, waitables: Sequence[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        ready = [each for each in waitables if self.chance.random() < 0.5]
        return ready[:num_returns], []

    def get(self, what: Loading | Line) -> Any:
        if isinstance(what, Line):
            return Outcome(Line(what.number, "", {}, 0), {"answer": what.values["prompt"]})
        self.live_on(what.actor)
        if self.refusal is not None:
            raise RayTaskError(self.refusal)
        return Ready(8, 4)

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor)

    def live_on(self, actor: Actor) -> None:
        assert actor not in self.killed, "somebody listens to an actor that was given up"
        if self.chance.random() < self.deaths:
            raise RayError("the node died")


@pytest.fixture
def outcomes_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Cluster, int, int], list[Outcome]]:
    def run(cluster: Cluster, count: int, size: int) -> list[Outcome]:
        monkeypatch.setattr(fleets, "ray_library", lambda: cluster)
        lines = (Line(number, f"line {number}", {"prompt": number}, 1) for number in range(count))
        order: Any = SimpleNamespace(threads=1)
        try:
            return [one for one in Fleet(order, size, count).run(lines) if one is not None]
        finally:
            assert set(cluster.killed) == set(cluster.actors)  # none is left behind

    return run


Outcomes = Callable[[Cluster, int, int], list[Outcome]]


@pytest.mark.parametrize("seed", range(20))
def test_each_line_has_one_outcome(outcomes_of: Outcomes, seed: int) -> None:
    found = outcomes_of(Cluster(seed, deaths=0.03), 150, 1 + seed % 5)
    assert sorted(outcome.line.number for outcome in found) == list(range(150))
    answered = [outcome for outcome in found if outcome.error is None]
    assert all(outcome.answer == {"answer": outcome.line.values["prompt"]} for outcome in answered)
    assert len(answered) >= 148  # a line that was with three that died by chance


@pytest.mark.parametrize("seed", range(20))
def test_a_line_that_kills_whoever_has_it_fails_by_itself(outcomes_of: Outcomes, seed: int) -> None:
    found = outcomes_of(Cluster(seed, deaths=0, poison=(0, 77, 149)), 150, 1 + seed % 5)
    assert sorted(outcome.line.number for outcome in found) == list(range(150))
    failed = {outcome.line.number: outcome.error for outcome in found if outcome.error is not None}
    assert set(failed) == {0, 77, 149}
    assert "3 workers died while they had this line: a line killed it" in str(failed[77])


def test_fewer_lines_than_were_told(outcomes_of: Outcomes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets.Fleet, "_next", lambda *_, **__: [])
    assert outcomes_of(Cluster(0, 0), 5, 2) == []


def test_workers_that_all_die_are_an_error(outcomes_of: Outcomes) -> None:
    with pytest.raises(BatchError, match="7 workers died one after the other, the last with: the node died"):
        outcomes_of(Cluster(0, deaths=1), 150, 2)


@pytest.mark.parametrize(
    ("refusal", "kind", "message"),
    [(PackageError("a bad package"), PackageError, "a bad package"), (OSError("odd"), BatchError, "OSError.'odd'")],
)
def test_what_keeps_a_worker_from_its_model_is_said(
    outcomes_of: Outcomes, refusal: Exception, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        outcomes_of(Cluster(0, 0, refusal=refusal), 5, 2)


def test_a_cluster_without_room_is_an_error(outcomes_of: Outcomes, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster: Any = Cluster(0, 0)
    cluster.wait, cluster.available_resources = lambda *_, **__: ([], []), lambda: {"CPU": 1.0}
    monkeypatch.setattr(fleets, "PATIENCE_S", 0)
    with pytest.raises(BatchError, match="no worker was ready for 0 s: each needs 1 CPUs, and the cluster has 1 free"):
        outcomes_of(cluster, 5, 2)
