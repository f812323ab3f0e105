"""Confidence intervals of scores that are no means: the examples drawn again and again, with a fixed seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgellm.evaluation.results import Metric
from edgellm.types import DoubleArray

SEED = 12345
ROUNDS = 1000


def with_intervals(
    count: int, scores: Callable[[DoubleArray], Mapping[str, float]], rounds: int = ROUNDS
) -> dict[str, Metric]:
    """The scores of `count` examples, with the middle 95% of `rounds` resamples as intervals. `scores` gets how often
    each example counts."""
    values = scores(np.ones(count))
    if not rounds or count < 2:
        return {name: Metric(value) for name, value in values.items()}
    rng, chances = np.random.default_rng(SEED), np.full(count, 1 / count)
    drawn = [scores(rng.multinomial(count, chances).astype(np.float64)) for _ in range(rounds)]
    return {name: _metric(value, [round_[name] for round_ in drawn]) for name, value in values.items()}


def _metric(value: float, drawn: list[float]) -> Metric:
    low, high = np.nanquantile(drawn, [0.025, 0.975]) if not np.isnan(drawn).all() else (np.nan, np.nan)
    return Metric(value, float(low), float(high))
