"""What an evaluation gives back: metrics, with their confidence intervals, and what is behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.types import DoubleArray

NORMAL_95 = 1.959964  # standard deviations to either side of the mean that hold 95% of a normal distribution
ROUNDS = 1000  # resamples for intervals of scores that are no means
SEED = 12345  # of the resamples


@dataclass(frozen=True)
class Metric:
    """A number, and where it has one its 95% confidence interval, from `low` to `high`."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Findings:
    """What an evaluation found: metrics, and in `details` what is behind them, ready for JSON."""

    metrics: Mapping[str, Metric]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` gives back: `metrics` by name, and all that they were made of. `settings` are what was chosen,
    also by default; `data` names file, sha256 and examples; `seconds` do not include loading."""

    task: str
    package: Mapping[str, Any]
    reference: Mapping[str, Any] | None
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    metrics: Mapping[str, Metric]
    details: Mapping[str, Any]
    versions: Mapping[str, str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; what is not a number is None."""
        result: dict[str, Any] = _finite(asdict(self))
        return result


def mean(values: Sequence[float] | npt.NDArray[Any], *, most: float | None = None, factor: float = 1.0) -> Metric:
    """The mean, with the interval that the values' standard error gives, times `factor`. Values that lie between 0 and
    `most` get an interval that does, too."""
    array = np.asarray(values, np.float64)
    found = mean_of_sums(len(array), float(array.sum()), float((array**2).sum()))
    ends = -math.inf if most is None else 0.0, math.inf if most is None else most
    return transformed(found, lambda value: factor * min(max(value, ends[0]), ends[1]))


def share(hits: Sequence[bool] | Sequence[float] | npt.NDArray[Any], *, factor: float = 1.0) -> Metric:
    """The share of ones among zeros and ones, with Wilson's interval, which holds for few of them too; times
    `factor`."""
    count, part = len(hits), float(np.mean(hits)) if len(hits) else math.nan
    if not count:
        return Metric(math.nan)
    square = NORMAL_95**2
    middle = (part + square / (2 * count)) / (1 + square / count)
    half = NORMAL_95 * math.sqrt(part * (1 - part) / count + square / (4 * count**2)) / (1 + square / count)
    low, high = max(0.0, min(part, middle - half)), min(1.0, max(part, middle + half))  # rounding apart
    return Metric(factor * part, factor * low, factor * high)


def mean_of_sums(count: int, total: float, squares: float) -> Metric:
    """The mean of `count` values whose sum and sum of squares are known, with its interval."""
    if not count:
        return Metric(math.nan)
    average = total / count
    if count < 2:
        return Metric(average)
    variance = max(0.0, squares - total * average) / (count - 1)
    half = NORMAL_95 * math.sqrt(variance / count)
    return Metric(average, average - half, average + half)


def transformed(metric: Metric, function: Callable[[float], float]) -> Metric:
    """The metric with `function`, which must grow with its argument, applied to the value and to both ends."""
    low, high = (None if end is None else function(end) for end in (metric.low, metric.high))
    return Metric(function(metric.value), low, high)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
