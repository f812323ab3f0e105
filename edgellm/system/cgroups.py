"""The control groups of this process: what a container or a service manager lets it have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgellm.system.sysfs import read_text

MOUNTS = {"": ("", "unified"), "cpu": ("cpu", "cpu,cpuacct"), "memory": ("memory",)}
UNLIMITED = 2**60  # bytes; version 1 says so with a number near 2**63


@dataclass(frozen=True)
class MemoryLimit:
    """Bytes that a control group may use, and has `used`, but for the pages of files that could be dropped any time."""

    limit: int
    used: int


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that the tightest cgroup (version 1 or 2) of this process grants, None where unlimited."""
    quotas = [_quota_v2(d) for d in _directories(root, "")] + [_quota_v1(d) for d in _directories(root, "cpu")]
    return min((q for q in quotas if q is not None), default=None)


def memory_limit(root: Path = Path("/")) -> MemoryLimit | None:
    """The limit of that cgroup of this process that has the least left; None where none limits it."""
    limits = [_memory_v2(d) for d in _directories(root, "")] + [_memory_v1(d) for d in _directories(root, "memory")]
    return min((each for each in limits if each is not None), key=lambda m: m.limit - m.used, default=None)


def _directories(root: Path, controller: str) -> list[Path]:
    """The cgroup of this process and its ancestors, for a version 1 controller or, with "", for version 2.

    Inside a container the path in /proc may be the host's; the ancestors that do exist still carry the limits.
    """
    mounts = [root / "sys/fs/cgroup" / name for name in MOUNTS[controller]]
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            relative = Path(path.lstrip("/"))
            return [mount / p for mount in mounts for p in (relative, *relative.parents)]
    return []


def _quota_v2(directory: Path) -> float | None:
    fields = (read_text(directory / "cpu.max") or "max").split()
    return None if fields[0] == "max" else int(fields[0]) / int(fields[1])


def _quota_v1(directory: Path) -> float | None:
    quota, period = read_text(directory / "cpu.cfs_quota_us"), read_text(directory / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _memory_v2(directory: Path) -> MemoryLimit | None:
    limit = read_text(directory / "memory.max") or "max"
    return None if limit == "max" else _memory(directory, int(limit), "memory.current", "inactive_file")


def _memory_v1(directory: Path) -> MemoryLimit | None:
    limit = int(read_text(directory / "memory.limit_in_bytes") or UNLIMITED)
    return None if limit >= UNLIMITED else _memory(directory, limit, "memory.usage_in_bytes", "total_inactive_file")


def _memory(directory: Path, limit: int, usage: str, droppable: str) -> MemoryLimit:
    lines = [line.split() for line in (read_text(directory / "memory.stat") or "").splitlines()]
    cached = next((int(fields[1]) for fields in lines if fields[0] == droppable), 0)
    return MemoryLimit(limit, max(0, int(read_text(directory / usage) or 0) - cached))
