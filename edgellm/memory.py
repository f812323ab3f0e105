"""What is not needed any more, given back to the operating system."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

SMAPS = Path("/proc/self/smaps")  # Linux: what is mapped where, with sizes in KiB
MADV_DONTNEED = 4


def return_freed_memory() -> None:
    """glibc's allocator keeps freed memory for later. Other allocators are left alone."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def release_mapped_files(directory: Path) -> None:
    """Pages of the directory's files that this process has mapped and not changed are no longer resident; those that
    are read again come back from the file. Nothing happens where the system is not Linux.

    ONNX Runtime copies most weights into an order of its own at load, and keeps the file mapped for the others.
    """
    with contextlib.suppress(OSError, AttributeError):
        madvise = ctypes.CDLL("libc.so.6", use_errno=True).madvise
        madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        with SMAPS.open(encoding="utf-8", errors="replace") as smaps:
            ranges = list(_unchanged(smaps, f"{directory.resolve()}{os.sep}"))
        for start, end in ranges:
            madvise(start, end - start, MADV_DONTNEED)


def _unchanged(smaps: Iterable[str], prefix: str) -> Iterator[tuple[int, int]]:
    """Address ranges of mapped files whose path begins with `prefix`, without those that hold changes of our own."""
    start = end = 0
    ours = False
    for line in smaps:
        first, *rest = line.split(None, 5)
        if not first.endswith(":"):  # a mapping begins: addresses, permissions, offset, device, inode, path
            start, end = (int(number, 16) for number in first.split("-"))
            ours = len(rest) == 5 and rest[4].startswith(prefix)
        elif ours and first == "Anonymous:" and rest[0] == "0":
            yield start, end
