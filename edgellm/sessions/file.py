"""The file of a saved session: written whole or not at all, read straight into a cache."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import (
    EdgellmError,
    SessionCorruptError,
    SessionFileError,
    SessionMismatchError,
    SessionNotFoundError,
    SessionWriteError,
)
from edgellm.sessions.header import Extent, FileLayout, Header, lay_out, read_header
from edgellm.system.cpu import usable_cores
from edgellm.system.directories import sync_directory
from edgellm.types import Array

try:
    import fcntl
except ImportError:  # not a Unix: what a killed process left is then not found
    fcntl = None  # type: ignore[assignment]


MAX_THREADS = 4  # that compute checksums; beyond that memory is the limit
ADVICE = "save the session again"


def write_file(path: Path, header: Header, arrays: Sequence[Array]) -> None:
    """Save arrays under a header, whose checksums are filled in here. `path` then has the whole of it or, after an
    error or a crash, what it had before. The file is its owner's to read. Raises SessionWriteError."""
    _check_byte_order()
    checksums = tuple(_map(_checksum, arrays))
    header = replace(header, checksums=checksums)
    start = header.to_bytes()
    layout = lay_out(header, len(start))
    with _write_errors(path):
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            raise SessionWriteError(f"the session cannot be saved to {path}: it is there, and it is no file")
        _remove_stale(target)
        with _partial_file(target) as (descriptor, partial):
            with open(descriptor, "wb", closefd=False) as file:
                file.write(start)
                for extent, array in zip(layout.extents, arrays, strict=True):
                    file.write(bytes(extent.offset - file.tell()))
                    for part in _parts(array):
                        file.write(part)
            os.fsync(descriptor)
            partial.replace(target)
        sync_directory(target.parent)


def check_writable(path: Path) -> None:
    """Check whether a file could be saved there, as far as that shows before. Raises SessionWriteError."""
    with _write_errors(path):
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not target.parent.is_dir():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[SavedFile]:
    """The file of a saved session, its header checked. Raises SessionFileError."""
    _check_byte_order()
    with _read_errors(path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise SessionFileError("it is not a file")
        with path.open("rb") as file:
            yield SavedFile(read_header(file), file.fileno())


class SavedFile:
    """An open file with a checked header. The arrays are checked as they are read."""

    def __init__(self, layout: FileLayout, descriptor: int) -> None:
        self.header = layout.header
        self._layout = layout
        self._descriptor = descriptor

    def read_tokens(self) -> npt.NDArray[np.int64]:
        """[tokens]"""
        tokens = np.empty(self.header.tokens, np.int64)
        self._read(0, tokens)
        return tokens

    def read_into(self, arrays: Sequence[Array]) -> None:
        """Fill the keys and values, layer by layer: each [num_kv_heads, tokens, head_dim], of which a head's part is
        contiguous. Raises SessionCorruptError where a checksum is wrong; the arrays are then of no use."""
        _map(lambda item: self._read(*item), [(number, array) for number, array in enumerate(arrays, 1)])

    def _read(self, number: int, array: Array) -> None:
        extent: Extent = self._layout.extents[number]
        offset, checksum = extent.offset, 0
        for part in _parts(array):
            _fill(self._descriptor, part, offset)
            checksum = zlib.crc32(part, checksum)
            offset += len(part)
        assert offset == extent.offset + extent.size
        if checksum != self.header.checksums[number]:
            raise SessionCorruptError(f"the checksum of its array {number} is wrong")


def _parts(array: Array) -> list[memoryview]:
    """The bytes of an array, in pieces that are contiguous."""
    pieces = list(array) if array.ndim == 3 else [array]
    assert all(piece.flags.c_contiguous for piece in pieces), "a copy would be filled instead"
    return [memoryview(piece.reshape(-1).view(np.uint8).data) for piece in pieces if piece.size]


def _checksum(array: Array) -> int:
    """CRC-32 finds damage, and takes a third of sha256's time. Neither would keep out those who write such files, as
    anyone can compute a checksum."""
    checksum = 0
    for part in _parts(array):
        checksum = zlib.crc32(part, checksum)
    return checksum


def _fill(descriptor: int, part: memoryview, offset: int) -> None:
    while part:
        count = os.preadv(descriptor, [part], offset)
        if not count:
            raise SessionCorruptError("it became shorter while it was read")
        part, offset = part[count:], offset + count


def _map(call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Call the function for each item, several at a time, as hashing and reading release Python's lock."""
    with ThreadPoolExecutor(min(MAX_THREADS, usable_cores())) as pool:
        return list(pool.map(call, items))


def _check_byte_order() -> None:
    if sys.byteorder != "little":
        raise SessionMismatchError(f"saved sessions are little-endian, and this machine is {sys.byteorder}-endian")


@contextlib.contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Reasons as whole messages, and the system's complaints as errors of ours."""
    try:
        yield
    except SessionFileError as error:
        raise type(error)(f"the session {path} cannot be loaded: {error}; {ADVICE}") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SessionNotFoundError(f"there is no saved session at {path}; save one with session.save(path)") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        if isinstance(error, EdgellmError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise SessionFileError(f"the session {path} cannot be read: {reason}; check path and rights") from error


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        if isinstance(error, EdgellmError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise SessionWriteError(
            f"the session cannot be saved to {path}: {reason}; what was there before is unchanged"
        ) from error


@contextlib.contextmanager
def _partial_file(target: Path) -> Iterator[tuple[int, Path]]:
    """A new file .NAME.*.partial beside `target` and its descriptor; removed at the end if it still has that name. It
    is locked while it is open, so that the next one to save knows what a killed process left."""
    descriptor, partial = _make_locked(target)
    try:
        yield descriptor, partial
    finally:
        partial.unlink(missing_ok=True)
        os.close(descriptor)


def _make_locked(target: Path) -> tuple[int, Path]:
    while True:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if Path(name).exists():  # another process may have found it before it was locked, and taken it for stale
            return descriptor, Path(name)
        os.close(descriptor)


def _remove_stale(target: Path) -> None:
    if fcntl is None:
        return
    pattern = re.compile(re.escape(f".{target.name}.") + r"[a-z0-9_]{8}\.partial")
    for name in glob.glob(f".{glob.escape(target.name)}.*.partial", root_dir=target.parent):
        if pattern.fullmatch(name):
            with contextlib.suppress(OSError):  # in use, or not ours to open or lock
                _remove_unlocked(target.parent / name)


def _remove_unlocked(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)
