"""How much memory this process takes and the machine has left, and what was freed given back."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
from pathlib import Path

from edgellm.system.sysfs import read_text

SELF = Path("/proc/self/status")


def peak_memory_bytes() -> int | None:
    """The largest resident size of this process so far; None where the system does not say."""
    return _field(SELF, "VmHWM:") if SELF.exists() else _peak_memory_from_usage()


def resident_bytes() -> int | None:
    """The resident size of this process now; None where the system does not say."""
    return _field(SELF, "VmRSS:")


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """What the system could still give to programs; None where it does not say."""
    return _field(root / "proc/meminfo", "MemAvailable:")


def total_memory_bytes(root: Path = Path("/")) -> int | None:
    return _field(root / "proc/meminfo", "MemTotal:")


def return_freed_memory() -> None:
    """Give what was freed back to the operating system: glibc's allocator keeps it for later. Other allocators are left
    alone."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def release_pages(address: int, nbytes: int) -> None:
    """Give the whole pages of this process's private memory from `address` on back to Linux. What they held is lost;
    they are zeros when they are next touched. Elsewhere nothing happens."""
    if sys.platform != "linux":
        return
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


def _field(file: Path, name: str) -> int | None:
    """The bytes in the line of `file` that begins with `name`, which gives kilobytes."""
    lines = (read_text(file) or "").splitlines()
    found = next((line for line in lines if line.startswith(name)), None)
    return None if found is None else 1024 * int(found.split()[1])


def _peak_memory_from_usage() -> int | None:
    """The peak where there is no /proc: on Linux this counts what the process was before it became this program."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
