"""What the machine and this process say at one moment: times, clocks, temperatures, what holds the processor back."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from edgellm.system.sysfs import find, read_int, read_text

CPU = "sys/devices/system/cpu"
RASPBERRY = "sys/devices/platform/soc/soc:firmware/get_throttled"
RASPBERRY_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "temperature limit"}  # of now


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
    """A sample of this machine and process. It takes about a millisecond: not to be called inside what is timed."""
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


def _cpu_times(root: Path) -> tuple[float | None, float | None]:
    """The seconds that all CPUs together were busy, and were stolen by the hypervisor. See proc_stat(5)."""
    lines = (read_text(root / "proc/stat") or "").splitlines()
    fields = next((line.split()[1:] for line in lines if line.startswith("cpu ")), [])
    if len(fields) < 8 or not hasattr(os, "sysconf"):
        return None, None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / ticks, steal / ticks


def _own_wait(root: Path) -> float | None:
    """The seconds that this process's threads waited for a CPU: the second field of schedstat is nanoseconds on a run
    queue."""
    waits = [read_text(path) for path in find(root, "proc/self/task/*/schedstat")]
    fields = [wait.split() for wait in waits if wait]
    return sum(int(each[1]) for each in fields) / 1e9 if fields else None


def _memory_pressure(root: Path) -> float | None:
    """The seconds that some task waited for memory; see Documentation/accounting/psi.rst of the kernel."""
    lines = (read_text(root / "proc/pressure/memory") or "").splitlines()
    some = next((line for line in lines if line.startswith("some ")), None)
    return None if some is None else int(some.rpartition("total=")[2]) / 1e6


def _quota_throttled(root: Path) -> float | None:
    """The seconds that this process's control group, version 2, was stopped for having used its CPU quota."""
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
    """Each thermal zone's temperature in degrees Celsius."""
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
