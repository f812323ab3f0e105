"""Dropping a package's files from the page cache, so that the next load reads them from the disk."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

STILL_CACHED = 0.02  # share of the pages; a few may be held by whoever reads ahead


def drop_pages(files: Sequence[Path]) -> str | None:
    """Ask the system to forget the pages of `files`. Returns None, or why the files are not known to be gone.

    The request is advice: pages that another process maps, or of a file system in memory, stay. So it is checked.
    """
    if not hasattr(os, "posix_fadvise"):
        return "this system has no posix_fadvise"
    try:
        for file in files:
            _drop(file)
        cached = _cached_share(files)
    except OSError as error:
        return f"the system refused: {error.strerror}"
    if cached is None:
        return "this system does not say which pages are cached"
    if cached > STILL_CACHED:
        return f"{cached:.0%} of the pages stayed in memory (a file system in memory, or a process that uses the files)"
    return None


def _drop(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # pages not yet written cannot be dropped; a read-only disk has none
            os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _cached_share(files: Sequence[Path]) -> float | None:
    mincore = getattr(ctypes.CDLL(None, use_errno=True), "mincore", None)
    if mincore is None:
        return None
    pages = [_resident_pages(file, mincore) for file in files if file.stat().st_size]
    total = sum(len(of_file) for of_file in pages)
    return sum(int(of_file.sum()) for of_file in pages) / total if total else 0.0


def _resident_pages(file: Path, mincore: ctypes._NamedFuncPointer) -> npt.NDArray[np.uint8]:
    """[pages] uint8: 1 where the page is in memory. Does not touch the pages."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        content = np.frombuffer(mapped, np.uint8)
        resident = np.zeros(-(-len(content) // mmap.PAGESIZE), np.uint8)
        status = mincore(
            ctypes.c_void_p(content.ctypes.data), ctypes.c_size_t(len(content)), ctypes.c_void_p(resident.ctypes.data)
        )
        del content  # the map can only be closed when nothing looks at it
        if status:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return resident & np.uint8(1)
