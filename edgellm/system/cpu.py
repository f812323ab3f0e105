"""The processor: its name, its caches, the cores that this process may really use (affinity mask, SMT siblings, cgroup
quota), and what its instructions mean for the kernels that multiply integers."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from pathlib import Path

from edgellm.system.cgroups import cpu_quota
from edgellm.system.sysfs import find, read_int, read_text

X86 = ("x86_64", "amd64", "x86", "i386", "i686")


def processor_name(root: Path) -> str:
    """The processor's name: x86 has it in cpuinfo, ARM boards name themselves in the device tree."""
    lines = (read_text(root / "proc/cpuinfo") or "").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    board = (read_text(root / "proc/device-tree/model") or "").rstrip("\0")
    return next(names, "") or board or platform.processor() or "unknown processor"


def last_level_cache_bytes(root: Path = Path("/")) -> int | None:
    """The bytes of all caches of the highest level together; None where the system does not say."""
    sizes: dict[tuple[int, str], int] = {}
    for directory in find(root, "sys/devices/system/cpu/cpu[0-9]*/cache/index[0-9]*"):
        level, size = read_int(directory / "level"), _size(read_text(directory / "size"))
        if level is not None and size is not None:
            sizes[level, read_text(directory / "shared_cpu_list") or str(directory)] = size
    highest = max((level for level, _ in sizes), default=None)
    return None if highest is None else sum(size for (level, _), size in sizes.items() if level == highest)


def adds_int8_products_in_16_bits(machine: str = "", cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether sums of uint8 by int8 products may overflow: on x86 without VNNI they are added in pairs of 16 bits.
    Where the system does not say, they may."""
    if (machine or platform.machine()).lower() not in X86:
        return False
    lines = (read_text(cpuinfo) or "").splitlines()
    return lacks_vnni(next((line.split() for line in lines if line.startswith("flags")), []))


def lacks_vnni(flags: Collection[str]) -> bool:
    """Whether an x86 processor with these flags in /proc/cpuinfo adds products of int8 in 16 bits."""
    return not any(flag in flags for flag in ("avx_vnni", "avx512_vnni"))


def _size(text: str | None) -> int | None:
    """The bytes that a text of sysfs such as "32768K" stands for."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    if not text or not text[:-1].isdigit():
        return None
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else None


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
