"""How many processor cores this process may really use: affinity mask, SMT siblings and cgroup quota."""

from __future__ import annotations

import os
from pathlib import Path

from edgellm.system.cgroups import cpu_quota
from edgellm.system.sysfs import read_text


def usable_cores(root: Path = Path("/")) -> int:
    """Physical cores in the affinity mask, or fewer where a container's CPU quota says so; at least 1."""
    cores = len({_core(root, cpu) for cpu in affinity()})
    quota = cpu_quota(root)
    return max(1, cores if quota is None else min(cores, int(quota)))


def affinity() -> set[int]:
    """The CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _core(root: Path, cpu: int) -> str:
    """A name shared by the hardware threads of one core."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    return read_text(topology / "core_cpus_list") or read_text(topology / "thread_siblings_list") or str(cpu)
