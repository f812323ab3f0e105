"""How many processor cores this process may really use: affinity mask, SMT siblings and cgroup quota."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Physical cores in the affinity mask, or fewer where a container's CPU quota says so; at least 1."""
    cpus = _affinity()
    cores = len({_core(root, cpu) for cpu in cpus})
    quota = cgroup_quota(root)
    return max(1, cores if quota is None else min(cores, int(quota)))


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that the tightest cgroup (version 1 or 2) of this process grants, None where unlimited."""
    quotas = [_quota_v2(d) for d in _cgroup_dirs(root, "")] + [_quota_v1(d) for d in _cgroup_dirs(root, "cpu")]
    return min((q for q in quotas if q is not None), default=None)


def _affinity() -> Iterable[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _core(root: Path, cpu: int) -> str:
    """A name shared by the hardware threads of one core."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    return _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list") or str(cpu)


def _cgroup_dirs(root: Path, controller: str) -> list[Path]:
    """The cgroup of this process and its ancestors, for a version 1 controller or, with "", for version 2.

    Inside a container the path in /proc may be the host's; the ancestors that do exist still carry the limits.
    """
    mounts = [root / "sys/fs/cgroup" / name for name in (("cpu", "cpu,cpuacct") if controller else ("", "unified"))]
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            relative = Path(path.lstrip("/"))
            return [mount / p for mount in mounts for p in (relative, *relative.parents)]
    return []


def _quota_v2(directory: Path) -> float | None:
    fields = (_read(directory / "cpu.max") or "max").split()
    return None if fields[0] == "max" else int(fields[0]) / int(fields[1])


def _quota_v1(directory: Path) -> float | None:
    quota, period = _read(directory / "cpu.cfs_quota_us"), _read(directory / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
