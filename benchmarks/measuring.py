"""Interleaved rounds: each system answers the same request in turn, so that the machine's drift meets all alike."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeVar

from systems import OWN
from workers import Failed, Start, Worker

T = TypeVar("T")
LONG = 1024  # longer prompts get fewer rounds and no warm-up round


@dataclass(frozen=True)
class Plan:
    """What is asked of every system; the batch and beam sizes of edgellm alone, 0 for none."""

    lengths: tuple[int, ...]
    new_tokens: int
    rounds: int
    long_rounds: int
    starts: int
    batch: int
    beams: int

    def rounds_of(self, length: int) -> int:
        return self.rounds if length <= LONG else min(self.rounds, self.long_rounds)


@dataclass
class Samples:
    """{system: {measure: [one value a round]}}, and why a system has none of a measure."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, system: str, measure: str, value: float) -> None:
        self.values.setdefault(system, {}).setdefault(measure, []).append(value)

    def fail(self, system: str, what: str, failure: Failed) -> None:
        self.failures[f"{system}, {what}"] = str(failure)


def prefill(length: int) -> str:
    return f"prefill {length}"


def decode(length: int) -> str:
    return f"decode after {length}"


def measure_starts(starts: Sequence[Start], plan: Plan, samples: Samples) -> None:
    """Load time and peak memory, each in fresh processes that answer the shortest prompt once. The first start warms
    the file cache and is dropped."""
    for turn in range(plan.starts + 1):
        for start in _order(starts, turn):
            try:
                _start_once(start, plan, samples, keep=turn > 0)
            except Failed as failure:
                samples.fail(start.name, "start", failure)
        _say(f"start {turn} of {plan.starts}")


def _start_once(start: Start, plan: Plan, samples: Samples, *, keep: bool) -> None:
    with closing(start.worker()) as worker:
        answer = worker.time(plan.lengths[0], plan.new_tokens)
        if keep:
            samples.add(start.name, "load s", worker.loaded["load_s"])
            samples.add(start.name, "process start to loaded s", worker.loaded["start_s"])
            samples.add(start.name, "peak RSS MiB", answer["peak_rss_mb"])
            samples.add(start.name, "above its imports MiB", answer["peak_rss_mb"] - worker.loaded["bare_mb"])


def measure_rounds(workers: Sequence[Worker], plan: Plan, samples: Samples) -> None:
    """Tokens per second of prefill and decode at each length. The shortest and all short prompts have a warm-up."""
    for turn in range(plan.rounds + 1):
        for length in plan.lengths:
            if turn <= plan.rounds_of(length) and (turn or length <= LONG or length == plan.lengths[0]):
                for worker in _order(workers, turn):
                    _sample(worker, length, plan, samples, keep=turn > 0)
        _several(workers, plan, samples, keep=turn > 0)
        _say(f"round {turn} of {plan.rounds}")


def _sample(worker: Worker, length: int, plan: Plan, samples: Samples, *, keep: bool) -> None:
    if f"{worker.name}, {length} tokens" in samples.failures:
        return
    try:
        answer = worker.time(length, plan.new_tokens)
    except Failed as failure:
        samples.fail(worker.name, f"{length} tokens", failure)
        return
    if keep:
        samples.add(worker.name, prefill(length), length / answer["first_token_s"])
        samples.add(worker.name, decode(length), (plan.new_tokens - 1) / answer["decode_s"])


def _several(workers: Sequence[Worker], plan: Plan, samples: Samples, *, keep: bool) -> None:
    """Measure edgellm's batch and beams at the shortest length: new tokens of all rows, or of all beams, per second."""
    own = next((worker for worker in workers if worker.name == OWN), None)
    for kind, rows, beams in (("batch", plan.batch, 1), ("beams", 1, plan.beams)):
        if own is None or not rows or not beams:
            continue
        try:
            answer = own.time_several(plan.lengths[0], plan.new_tokens, rows=rows, beams=beams)
        except Failed as failure:
            samples.fail(OWN, f"{kind} {rows * beams}", failure)
        else:
            if keep:
                samples.add(OWN, f"{kind} {rows * beams}", rows * beams * (plan.new_tokens - 1) / answer["decode_s"])


def medians(samples: Samples) -> dict[str, dict[str, float]]:
    return {
        system: {measure: statistics.median(values) for measure, values in measures.items()}
        for system, measures in samples.values.items()
    }


def ratio(own: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Round by round edgellm's value over the other's: median, lowest, highest."""
    pairs = [a / b for a, b in zip(own, other, strict=False)]
    return statistics.median(pairs), min(pairs), max(pairs)


def _order(items: Sequence[T], turn: int) -> Iterable[T]:
    """Backwards every other turn, and every second turn another one begins: nobody always follows the same one."""
    first = turn // 2 % len(items)
    turned = [*items[first:], *items[:first]]
    return reversed(turned) if turn % 2 else turned


def _say(text: str) -> None:
    print(text, file=sys.stderr)
