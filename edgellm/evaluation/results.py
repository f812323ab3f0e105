"""What an evaluation gives back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

NORMAL_95 = 1.959964  # standard deviations to either side of the mean that hold 95% of a normal distribution


@dataclass(frozen=True)
class Metric:
    """`low` to `high`: the 95% confidence interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Findings:
    """`details`: what is behind the metrics, ready for JSON."""

    metrics: Mapping[str, Metric]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """`metrics` by name. `settings`: what was chosen, also by default. `data`: file, sha256, examples.
    `seconds`: without loading."""

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


def mean(values: Sequence[float] | npt.NDArray[Any], factor: float = 1.0) -> Metric:
    """The mean, times `factor`, with the interval that the values' standard error gives."""
    array = np.asarray(values, np.float64)
    return mean_of_sums(len(array), float(array.sum()), float((array**2).sum()), factor)


def mean_of_sums(count: int, total: float, squares: float, factor: float = 1.0) -> Metric:
    """`mean` of `count` values, of which the sum and the sum of squares are known."""
    if not count:
        return Metric(math.nan)
    average = total / count
    if count < 2:
        return Metric(factor * average)
    variance = max(0.0, squares - total * average) / (count - 1)
    half = NORMAL_95 * math.sqrt(variance / count)
    return Metric(factor * average, factor * (average - half), factor * (average + half))


def transformed(metric: Metric, function: Callable[[float], float]) -> Metric:
    """`function`, which grows with its argument, of the value and of the ends of the interval."""
    low, high = (None if end is None else function(end) for end in (metric.low, metric.high))
    return Metric(function(metric.value), low, high)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
