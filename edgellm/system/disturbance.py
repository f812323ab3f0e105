"""Whether the machine was left alone while something was measured: other programs, throttling, swapping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from edgellm.system.sample import Sample

# What is tolerated: a share of the time, and in any case so many seconds, which counters resolve in steps of 10 ms.
LEAST_S = 0.05
OTHERS = 0.05  # of all CPUs' time, by other programs
STEAL = 0.01  # of all CPUs' time, by other virtual machines
WAITING = 0.02  # of the time of our threads, for a CPU
MEMORY_PRESSURE = 0.01  # of the time, some task waiting for memory
SLOWER_CLOCK = 0.9  # of the highest frequency seen
MAJOR_FAULTS = 16  # pages read from the disk
SLOWER_RUN = 1.25  # times the fastest run
SLOWER_RUN_S = 0.05


@dataclass(frozen=True)
class Conditions:
    """What a measurement was taken under. `disturbed` says why its figures should not be trusted; it is empty where
    nothing was noticed."""

    seconds: float
    other_cpus: float | None  # CPUs' worth of time that other programs used, on average
    steal_share: float | None  # of all CPUs' time
    frequency_mhz: float | None  # of the busiest CPUs, mean of the readings after each run
    temperature_c: float | None  # the highest reading
    load_1min: float | None  # before the first run
    disturbed: tuple[str, ...]


def judge(samples: Sequence[Sample], run_seconds: Sequence[float], threads: int) -> Conditions:
    """The conditions of a measurement. samples: one before the first run and one after each. run_seconds: each
    run's."""
    first, last = samples[0], samples[-1]
    seconds = max(last.at_s - first.at_s, 1e-9)
    others_s = _others(first, last)
    steal_s = _grown(first, last, lambda s: s.steal_s)
    clocks = _clocks(samples, threads)
    return Conditions(
        seconds=seconds,
        other_cpus=None if others_s is None else others_s / seconds,
        steal_share=None if steal_s is None else steal_s / (seconds * last.cpus),
        frequency_mhz=fmean(clocks) if clocks else None,
        temperature_c=max((s.temperature_c for s in samples if s.temperature_c is not None), default=None),
        load_1min=first.load_1min,
        disturbed=(*disturbances(samples, threads), *_memory(first, last, seconds), *_spread(run_seconds)),
    )


def disturbances(samples: Sequence[Sample], threads: int) -> tuple[str, ...]:
    """What took or slowed down the CPU between the first and the last sample. It is for a load, say, where `judge` is
    too much: that reads from the disk by intention, and there are no runs to compare."""
    return (*_contention(samples[0], samples[-1], threads), *_throttling(samples, _clocks(samples, threads)))


def _contention(first: Sample, last: Sample, threads: int) -> list[str]:
    reasons, seconds = [], max(last.at_s - first.at_s, 1e-9)
    others = _others(first, last)
    if _above(others, OTHERS * seconds * last.cpus):
        reasons.append(f"other programs used {others / seconds:.2f} of {last.cpus} CPUs")  # type: ignore[operator]
    steal = _grown(first, last, lambda s: s.steal_s)
    if _above(steal, STEAL * seconds * last.cpus):
        share = steal / (seconds * last.cpus)  # type: ignore[operator]
        reasons.append(f"other virtual machines took {share:.1%} of the CPUs' time")
    waited = _grown(first, last, lambda s: s.own_wait_s)
    if _above(waited, WAITING * seconds * threads):
        share = waited / (seconds * threads)  # type: ignore[operator]
        reasons.append(f"threads waited for a CPU {share:.1%} of the time")
    quota = _grown(first, last, lambda s: s.quota_throttled_s)
    if quota:
        reasons.append(f"the CPU quota of this container stopped it for {quota:.2f} s")
    return reasons


def _throttling(samples: Sequence[Sample], clocks: Sequence[float]) -> list[str]:
    reasons = list(dict.fromkeys(state for sample in samples for state in sample.states))
    events = _grown(samples[0], samples[-1], lambda s: s.heat_throttled)
    if events:
        reasons.append(f"the processor throttled {events:.0f} times because of heat")
    if clocks and min(clocks) < SLOWER_CLOCK * max(clocks):
        reasons.append(f"the clock fell from {max(clocks):.0f} to {min(clocks):.0f} MHz")
    return reasons


def _memory(first: Sample, last: Sample, seconds: float) -> list[str]:
    reasons = []
    faults = _grown(first, last, lambda s: s.major_faults)
    if faults is not None and faults > MAJOR_FAULTS:
        reasons.append(f"{faults:.0f} pages of this process came from the disk: memory is short")
    pressure = _grown(first, last, lambda s: s.memory_pressure_s)
    if _above(pressure, MEMORY_PRESSURE * seconds):
        reasons.append(f"programs waited for memory {pressure / seconds:.1%} of the time")  # type: ignore[operator]
    return reasons


def _clocks(samples: Sequence[Sample], threads: int) -> list[float]:
    """The clock after each run in MHz: the mean of the busiest CPUs, as many as there are threads."""
    return [fmean(sorted(s.frequencies_mhz)[-threads:]) for s in samples[1:] if s.frequencies_mhz]


def _spread(run_seconds: Sequence[float]) -> list[str]:
    """Runs of unlike length, which also show what no counter does, such as a process that was stopped for a while."""
    fastest, slowest = min(run_seconds), max(run_seconds)
    if slowest > SLOWER_RUN * fastest and slowest - fastest > SLOWER_RUN_S:
        return [f"the slowest run took {slowest / fastest:.2f} times the fastest"]
    return []


def _above(value: float | None, limit: float) -> bool:
    return value is not None and value > max(LEAST_S, limit)


def _grown(first: Sample, last: Sample, of: Callable[[Sample], float | None]) -> float | None:
    before, after = of(first), of(last)
    return None if before is None or after is None else after - before


def _others(first: Sample, last: Sample) -> float | None:
    busy = _grown(first, last, lambda s: s.busy_s)
    return None if busy is None else max(0.0, busy - (last.own_cpu_s - first.own_cpu_s))
