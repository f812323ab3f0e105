"""Files on disk: weights at aligned offsets of one data file, and a directory that appears whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgellm.errors import OutOfSpaceError, OutputExistsError
from edgellm_export.decoder_graph import BuiltGraph
from edgellm_export.graph import Produced, Region

ALIGNMENT = 4096  # bytes: what ONNX Runtime needs to map a tensor instead of copying it
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fs.h


def write_graph(built: BuiltGraph, path: Path, *, progress: Callable[[int, int], None] | None = None) -> dict[str, int]:
    """Write `path` and `path`.data, piece by piece. `progress` gets (bytes done, bytes in all). Returns region offsets.

    Raises OutOfSpaceError when the disk is full.
    """
    data = path.with_name(path.name + ".data")
    offsets = _layout([produced.regions for produced in built.produced])
    with disk_errors(path.parent):
        _write_data(built.produced, offsets, data, progress)
        for stored in built.stored:
            region = stored.region
            stored.value.const_value = ir.ExternalTensor(
                data.name, offsets[region.name], region.nbytes, ir.DataType.from_numpy(region.dtype),
                shape=stored.value.shape or ir.Shape(region.shape), name=str(stored.value.name), base_dir=path.parent,
            )  # fmt: skip
        ir.save(built.model, path)
    return offsets


@contextlib.contextmanager
def new_directory(target: Path, *, force: bool, keep: Callable[[BaseException], Path | None]) -> Iterator[Path]:
    """A temporary directory beside `target` that becomes `target` when the block ends well.

    When it does not, the directory is removed and `target` stays as it was; `keep` may name a path at which to keep the
    unfinished directory instead. Raises OutputExistsError if `target` exists and `force` is not set.
    """
    check_target(target, force=force)
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        work.chmod(0o755)
    try:
        yield work
        with disk_errors(target.parent):
            _sync(work)
            _put(work, target)
    except BaseException as error:
        kept = keep(error)
        if kept is not None and not kept.exists():
            work.rename(kept)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a taken path early. With `force`, only a package (or an empty directory) may be replaced."""
    if not target.exists() and not target.is_symlink():
        return
    if not force:
        raise OutputExistsError(f"{target} exists already; choose another path, or replace it with --force")
    if not target.is_dir() or (any(target.iterdir()) and not (target / "edgellm.json").is_file()):
        raise OutputExistsError(
            f"{target} exists and is not an edgellm package, so --force does not replace it; choose another path"
        )


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn the system's complaints about a full or unwritable disk into OutOfSpaceError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputExistsError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = shutil.disk_usage(where).free if where.exists() else 0
            raise OutOfSpaceError(
                f"the disk that holds {where} is full ({free >> 20} MiB free); make room and export again"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EIO):
            raise OutOfSpaceError(f"cannot write to {where}: {error.strerror}; choose another output path") from error
        raise


def _layout(groups: Sequence[Sequence[Region]]) -> dict[str, int]:
    offsets, end = {}, 0
    for region in (region for group in groups for region in group):
        offsets[region.name] = end
        end += -(-region.nbytes // ALIGNMENT) * ALIGNMENT
    return offsets


def _write_data(
    groups: Sequence[Produced], offsets: dict[str, int], path: Path, progress: Callable[[int, int], None] | None
) -> None:
    total = sum(region.nbytes for group in groups for region in group.regions)
    done = 0
    with path.open("wb") as file:
        size = max((offsets[r.name] + r.nbytes for group in groups for r in group.regions), default=0)
        os.posix_fallocate(file.fileno(), 0, size) if size else None
        for group in groups:
            cursors = [offsets[region.name] for region in group.regions]
            for pieces in group.pieces():
                for i, (region, piece) in enumerate(zip(group.regions, pieces, strict=True)):
                    assert piece.dtype == region.dtype
                    file.seek(cursors[i])
                    file.write(np.ascontiguousarray(piece).data)
                    cursors[i] += piece.nbytes
                    done += piece.nbytes
                if progress:
                    progress(done, total)
            for region, cursor in zip(group.regions, cursors, strict=True):
                assert cursor == offsets[region.name] + region.nbytes, f"{region.name} was not filled"


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
