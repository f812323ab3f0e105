"""The simulated batch: what bounds it is what should."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulation import Times, efficiency, seconds_of

TIMES = Times(gaps=(0.1, 0.2, 0.3), alone_s=0.2 * 4, start_s=0, driver_s=0, rows=4)


def test_one_worker_takes_its_gaps_and_a_slower_end() -> None:
    """With rows that are as slow alone as together: four times as slow a line at the very end."""
    assert seconds_of(TIMES, 1, 4000) == pytest.approx(4000 * 0.2, rel=0.02)
    assert seconds_of(TIMES, 1, 1) == pytest.approx(0.8, rel=0.5)
    together = replace(TIMES, alone_s=0.2)
    assert seconds_of(together, 1, 1) == pytest.approx(0.2, rel=0.5)


def test_more_workers_are_worth_as_much_until_something_bounds_them() -> None:
    assert efficiency(TIMES, 16, 16_000) == pytest.approx(1, abs=0.05)
    assert efficiency(TIMES, 16, 16) < 0.5  # no row has a neighbour
    assert efficiency(replace(TIMES, start_s=100), 16, 1600) < 0.3
    bound = replace(TIMES, driver_s=0.05)  # four times as fast as a worker
    assert seconds_of(bound, 16, 1600) == pytest.approx(1600 * 0.05, rel=0.05)
