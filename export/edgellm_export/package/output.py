"""A directory that appears whole or not at all, whatever interrupts its making."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from edgellm.errors import EdgellmError, OutOfSpaceError, OutputExistsError
from edgellm.package.manifest import MANIFEST_NAME

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNWRITABLE = (
    errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.EIO, errno.ENAMETOOLONG,
)  # fmt: skip
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fs.h


@contextlib.contextmanager
def new_directory(target: Path, *, force: bool, keep: Callable[[BaseException], Path | None]) -> Iterator[Path]:
    """A temporary directory beside `target` that becomes `target` when the block ends well.

    When it does not, the directory is removed and `target` stays as it was; `keep` may name a path at which to keep the
    unfinished directory instead, in place of a package that is there. A process that is killed leaves its directory,
    .NAME.*.partial, to the next one with the same target. Raises OutputExistsError, or OutOfSpaceError when the disk is
    full or not writable.
    """
    check_target(target, force=force)
    with _parents_of(target), _partial_directory(target) as work:
        try:
            with full_disk(target.parent):
                yield work
            with disk_errors(target.parent):
                _sync(work)
                _put(work, target)
        except BaseException as error:
            kept = keep(error)
            if kept is not None:
                with disk_errors(target.parent):
                    _put(work, kept)
            raise


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a taken path early. With `force`, only a package (or an empty directory) may be replaced."""
    with disk_errors(target.parent):
        if not target.exists() and not target.is_symlink():
            return
        if not force:
            raise OutputExistsError(f"{target} exists already; choose another path, or replace it with --force")
        if not target.is_dir() or (any(target.iterdir()) and not (target / MANIFEST_NAME).is_file()):
            raise OutputExistsError(
                f"{target} exists and is not an edgellm package, so it is not replaced; choose another path"
            )


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn the system's complaints about a full or unwritable disk into OutOfSpaceError."""
    with full_disk(where):
        try:
            yield
        except OSError as error:
            if isinstance(error, EdgellmError) or error.errno not in UNWRITABLE:
                raise
            raise OutOfSpaceError(f"cannot write to {where}: {error.strerror}; choose another output path") from error


@contextlib.contextmanager
def full_disk(where: Path) -> Iterator[None]:
    """Turn those about a full disk alone, where others may be about what is read."""
    try:
        yield
    except OSError as error:
        if isinstance(error, EdgellmError) or error.errno not in FULL:
            raise
        free = shutil.disk_usage(where).free if where.exists() else 0
        raise OutOfSpaceError(
            f"the disk that holds {where} is full or limits the size of files ({free >> 20} MiB free); "
            "make room and export again"
        ) from error


@contextlib.contextmanager
def _parents_of(target: Path) -> Iterator[None]:
    """Make the directories above `target`; those that were not there are removed again after an error."""
    absent = [parent for parent in target.parents if not parent.exists()]
    try:
        with disk_errors(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # not made, or in use by now
            for parent in absent:
                parent.rmdir()
        raise


@contextlib.contextmanager
def _partial_directory(target: Path) -> Iterator[Path]:
    """A directory .NAME.*.partial beside `target`, removed at the end if it is still there."""
    _remove_stale(target)
    work, lock = _make_locked(target)
    try:
        yield work
    finally:
        try:
            _remove(work)
        except BaseException:  # a signal in the middle of it; the program ignores further ones
            _remove(work)
            raise
        finally:
            os.close(lock)


def _remove(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)


def _make_locked(target: Path) -> tuple[Path, int]:
    """The directory, and a descriptor that locks it while it is open: the system closes it with the process."""
    while True:
        with disk_errors(target.parent):
            work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
            try:
                work.chmod(0o755)
                lock = os.open(work, os.O_RDONLY)
            except FileNotFoundError:  # another process found it without a lock, and took it for stale
                continue
        if _lock(lock) and work.exists():
            return work, lock
        os.close(lock)


def _lock(descriptor: int) -> bool:
    """Lock the open directory; False where another process has. A file system without locks is no reason not to
    export."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _remove_stale(target: Path) -> None:
    """Remove what killed processes left of `target`: directories that no process holds a lock on."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"[a-z0-9_]{8}\.partial")
    for name in glob.glob(f".{glob.escape(target.name)}.*.partial", root_dir=target.parent):
        if pattern.fullmatch(name):
            with contextlib.suppress(OSError):  # in use, or not ours to open or lock
                lock = os.open(target.parent / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(target.parent / name)
                finally:
                    os.close(lock)


def _sync(directory: Path) -> None:
    """Make the files durable before the rename makes them visible."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _put(work: Path, target: Path) -> None:
    """Rename `work` to `target`. An existing target is exchanged in one step where the system can, so it is never
    absent."""
    if not target.exists():
        work.rename(target)
        return
    if _exchange(work, target):
        return  # `work` now holds the old package, which the caller removes
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    target.rename(old / "package")
    try:
        work.rename(target)
    except BaseException:
        (old / "package").rename(target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """renameat2(RENAME_EXCHANGE); False where there is no such call or file system."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(call(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0)
