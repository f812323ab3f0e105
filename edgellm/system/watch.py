"""Whether the machine was left alone while something was measured: other programs, throttling, swapping."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.system.sysfs import find, read_int, read_text

CPU = "sys/devices/system/cpu"
RASPBERRY = "sys/devices/platform/soc/soc:firmware/get_throttled"
RASPBERRY_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "temperature limit"}  # of now

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
class Sample:
    """What the machine says at one moment; None where it does not say. Times and counts only grow."""

    at_s: float
    cpus: int
    own_cpu_s: float
    own_wait_s: float | None = None  # our threads, ready but without a CPU
    busy_s: float | None = None  # all CPUs, whoever uses them
    steal_s: float | None = None
    memory_pressure_s: float | None = None
    quota_throttled_s: float | None = None  # our cgroup, out of its CPU quota
    heat_throttled: int | None = None  # events
    major_faults: int | None = None
    frequencies_mhz: tuple[float, ...] = ()  # of each CPU
    temperature_c: float | None = None  # of the hottest zone
    states: tuple[str, ...] = ()  # what holds the processor back right now
    load_1min: float | None = None


def take_sample(root: Path = Path("/")) -> Sample:
    """Of the machine and of this process. Takes about a millisecond: not to be called inside what is timed."""
    busy, steal = _cpu_times(root)
    load = (read_text(root / "proc/loadavg") or "").split()
    return Sample(
        at_s=time.monotonic(),
        cpus=os.cpu_count() or 1,
        own_cpu_s=time.process_time(),
        own_wait_s=_own_wait(root),
        busy_s=busy,
        steal_s=steal,
        memory_pressure_s=_memory_pressure(root),
        quota_throttled_s=_quota_throttled(root),
        heat_throttled=_heat_throttled(root),
        major_faults=_major_faults(),
        frequencies_mhz=_frequencies(root),
        temperature_c=max(_temperatures(root).values(), default=None),
        states=(*_hot_zones(root), *_cooling(root), *_raspberry(root)),
        load_1min=float(load[0]) if load else None,
    )


@dataclass(frozen=True)
class Conditions:
    """Of one measurement. `disturbed` says why its figures should not be trusted; empty where nothing was noticed."""

    seconds: float
    other_cpus: float | None  # CPUs' worth of time that other programs used, on average
    steal_share: float | None  # of all CPUs' time
    frequency_mhz: float | None  # of the busiest CPUs, mean of the readings after each run
    temperature_c: float | None  # the highest reading
    load_1min: float | None  # before the first run
    disturbed: tuple[str, ...]


def judge(samples: Sequence[Sample], run_seconds: Sequence[float], threads: int) -> Conditions:
    """samples: before the first run and after each one. run_seconds: of each run."""
    first, last = samples[0], samples[-1]
    seconds = max(last.at_s - first.at_s, 1e-9)
    others_s = _others(first, last)
    steal_s = _grown(first, last, lambda s: s.steal_s)
    clocks = _clocks(samples, threads)
    return Conditions(
        seconds=seconds,
        other_cpus=None if others_s is None else others_s / seconds,
        steal_share=None if steal_s is None else steal_s / (seconds * last.cpus),
        frequency_mhz=_mean(clocks) if clocks else None,
        temperature_c=max((s.temperature_c for s in samples if s.temperature_c is not None), default=None),
        load_1min=first.load_1min,
        disturbed=(*disturbances(samples, threads), *_memory(first, last, seconds), *_spread(run_seconds)),
    )


def disturbances(samples: Sequence[Sample], threads: int) -> tuple[str, ...]:
    """What took or slowed down the CPU between the first and the last sample. For a load, say, where `judge` is too
    much: it reads from the disk by intention, and there are no runs to compare."""
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
    """MHz after each run: the mean of the busiest CPUs, as many as there are threads."""
    return [_mean(sorted(s.frequencies_mhz)[-threads:]) for s in samples[1:] if s.frequencies_mhz]


def _spread(run_seconds: Sequence[float]) -> list[str]:
    """Also finds what no counter shows, such as a process that was stopped for a while."""
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


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _cpu_times(root: Path) -> tuple[float | None, float | None]:
    """Seconds of all CPUs together: busy, and stolen by the hypervisor. See proc_stat(5)."""
    lines = (read_text(root / "proc/stat") or "").splitlines()
    fields = next((line.split()[1:] for line in lines if line.startswith("cpu ")), [])
    if len(fields) < 8 or not hasattr(os, "sysconf"):
        return None, None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / ticks, steal / ticks


def _own_wait(root: Path) -> float | None:
    """Of all threads of this process; the second field of schedstat is nanoseconds on a run queue."""
    waits = [read_text(path) for path in find(root, "proc/self/task/*/schedstat")]
    fields = [wait.split() for wait in waits if wait]
    return sum(int(each[1]) for each in fields) / 1e9 if fields else None


def _memory_pressure(root: Path) -> float | None:
    """See Documentation/accounting/psi.rst of the kernel."""
    lines = (read_text(root / "proc/pressure/memory") or "").splitlines()
    some = next((line for line in lines if line.startswith("some ")), None)
    return None if some is None else int(some.rpartition("total=")[2]) / 1e6


def _quota_throttled(root: Path) -> float | None:
    """Of this process's control group, version 2."""
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            statistics = read_text(root / "sys/fs/cgroup" / line[3:].lstrip("/") / "cpu.stat") or ""
            fields = dict(each.split() for each in statistics.splitlines())
            return int(fields["throttled_usec"]) / 1e6 if "throttled_usec" in fields else None
    return None


def _heat_throttled(root: Path) -> int | None:
    counts = [read_int(path) for path in find(root, f"{CPU}/cpu[0-9]*/thermal_throttle/*_throttle_count")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _major_faults() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def _frequencies(root: Path) -> tuple[float, ...]:
    khz = [read_int(path) for path in find(root, f"{CPU}/cpu[0-9]*/cpufreq/scaling_cur_freq")]
    return tuple(each / 1000 for each in khz if each)


def _temperatures(root: Path) -> dict[Path, float]:
    """Degrees of each thermal zone."""
    zones = {zone: read_int(zone / "temp") for zone in find(root, "sys/class/thermal/thermal_zone*")}
    return {zone: temperature / 1000 for zone, temperature in zones.items() if temperature is not None}


def _hot_zones(root: Path) -> list[str]:
    """Zones at a temperature from which the kernel slows things down."""
    states = []
    for zone, temperature in _temperatures(root).items():
        limits = [
            read_int(kind.with_name(kind.name.replace("_type", "_temp")))
            for kind in find(zone, "trip_point_*_type")
            if read_text(kind) in ("passive", "hot", "critical")
        ]
        limit = min((each for each in limits if each is not None and each > 0), default=None)
        if limit is not None and temperature >= limit / 1000:
            states.append(f"{read_text(zone / 'type') or zone.name} is at its limit of {limit / 1000:.0f} degrees")
    return states


def _cooling(root: Path) -> list[str]:
    """Cooling devices that slow a processor down, and do so now."""
    devices = find(root, "sys/class/thermal/cooling_device*")
    kinds = {device: read_text(device / "type") or "" for device in devices if read_int(device / "cur_state")}
    slowing = [kind for kind in kinds.values() if kind == "Processor" or "cpufreq" in kind]
    return [f"cooling slows the processor down ({kind})" for kind in dict.fromkeys(slowing)]


def _raspberry(root: Path) -> list[str]:
    bits = read_int(root / RASPBERRY, base=16) or 0
    return [f"the board reports {what}" for bit, what in RASPBERRY_BITS.items() if bits >> bit & 1]
