"""The time that is left, from tokens that were counted and seconds that were measured."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from edgellm.bulk import pace as module
from edgellm.bulk.inputs import Facts
from edgellm.bulk.lines import Line, Outcome
from edgellm.bulk.pace import Pace

PROMPT_S, NEW_S = 0.001, 0.02


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


def lines(sizes: list[int]) -> Iterator[Line]:
    return (Line(number, "", {}, size) for number, size in enumerate(sizes))


def run(pace: Pace, clock: Clock, sizes: list[int], new: int, done: set[int], until: int) -> None:
    """Lines that take what their tokens cost: one for each unit of size, and `new`."""
    for line in pace.through(lines(sizes), done.__contains__):
        clock.now += PROMPT_S * line.size + NEW_S * new
        pace.end(Outcome(line, {}, None, 200, line.size, new))
        pace.look(pace.prompt_tokens, pace.new_tokens)
        if line.number >= until:
            return


def test_nothing_is_said_before_something_is_known(clock: Clock) -> None:
    assert Pace(Facts("", 3, 30), 3).remaining_s() is None


def test_long_prompts_at_the_end_are_foreseen(clock: Clock) -> None:
    """Lines alone would say a third of it."""
    generator = np.random.default_rng(0)
    sizes = [*generator.integers(100, 1900, 40).tolist(), *[5000] * 40]
    pace = Pace(Facts("", len(sizes), sum(sizes)), len(sizes))
    run(pace, clock, sizes, 50, set(), 39)
    assert pace.remaining_s() == pytest.approx(PROMPT_S * 5000 * 40 + NEW_S * 50 * 40, rel=0.02)


def test_lines_of_an_earlier_run_take_no_time(clock: Clock) -> None:
    sizes, done = [1000, 500] * 50, {number for number in range(100) if number % 5}
    pace = Pace(Facts("", 100, sum(sizes)), 20)
    run(pace, clock, sizes, 100, done, 45)
    assert pace.remaining_s() == pytest.approx(10 * (PROMPT_S * 750 + NEW_S * 100), rel=0.02)


def test_moments_that_are_all_alike_give_the_right_sum(clock: Clock) -> None:
    pace = Pace(Facts("", 100, 100_000), 100)
    run(pace, clock, [1000] * 100, 100, set(), 9)
    assert pace.remaining_s() == pytest.approx(90 * (PROMPT_S * 1000 + NEW_S * 100), rel=0.01)


def test_a_cost_is_never_below_nothing(clock: Clock) -> None:
    """Prompts that come when all else gets faster: what is left is not overrated for it."""
    pace = Pace(Facts("", 200, 200), 200)
    for prompt, new, seconds in ((0, 100, 2.0), (50, 100, 1.0), (100, 100, 0.5)):
        pace.measure(np.array([prompt, new], np.float64), seconds)
    assert pace.costs() == (0.0, pytest.approx(3.5 / 300, rel=0.01))


def test_tokens_of_unfinished_lines_are_not_asked_for_again(clock: Clock) -> None:
    pace = Pace(Facts("", 10, 100), 10)
    run(pace, clock, [10] * 10, 100, set(), 4)
    before = pace.remaining_s()
    clock.now += 2
    pace.look(50, 500 + 100)  # a line's worth, under way
    after = pace.remaining_s()
    assert before is not None
    assert after is not None
    assert after < before
