"""A package on its way: in parts in the object store, and from there in a folder of each node, once for all workers."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import BatchError, OptionError, PackageError, system_errors
from edgellm.loading import HASH_LIMIT
from edgellm.package.files import check_files, read_errors, read_manifest
from edgellm.package.manifest import MANIFEST_NAME, Manifest
from edgellm.ray.library import ray_library

PART = 16 << 20  # bytes: what a worker has in memory while it writes


@dataclass(frozen=True)
class Parcel:
    """References to the parts of each file, by its name. They last as long as the process that packed them lives."""

    identity: str
    files: Mapping[str, Sequence[Any]]


def packed(package: Path, manifest: Manifest, identity: str) -> Parcel:
    """The package in the object store; what does not fit there Ray writes to this node's disk. Raises PackageError, and
    OptionError for a directory of another tool."""
    if not (package / MANIFEST_NAME).is_file():
        raise OptionError(
            f"{package} has no {MANIFEST_NAME}, by which a copy could be checked; put it where all nodes can read it, "
            "and say that it is shared"
        )
    check_files(package, manifest, hash_limit=HASH_LIMIT)
    with read_errors(package):
        return Parcel(identity, {name: _parts(package / name) for name in (MANIFEST_NAME, *manifest.files)})


def _parts(path: Path) -> list[Any]:
    put, found = ray_library().put, []
    with path.open("rb") as file:
        while (part := np.fromfile(file, np.uint8, PART)).size:
            found.append(put(part))
    return found


def unpacked(parcel: Parcel) -> Path:
    """The package's directory on this node: it is made by the first worker there that needs it, and checked against the
    manifest's hashes before it has its name; other workers, and later jobs, find it. Raises PackageError or
    BatchError."""
    with system_errors(BatchError, lambda e: f"this node has no room for the package: {e.strerror} ({e.filename})"):
        root = _root()
        target = root / parcel.identity
        with _locked(root / f"{parcel.identity}.lock"):
            if not _is_whole(target):
                for left in root.glob(f"{parcel.identity}.partial-*"):  # by a worker that was killed
                    shutil.rmtree(left)
                shutil.rmtree(target, ignore_errors=True)
                _write(parcel, root).rename(target)
    return target


def _write(parcel: Parcel, root: Path) -> Path:
    get = ray_library().get
    partial = Path(tempfile.mkdtemp(prefix=f"{parcel.identity}.partial-", dir=root))
    try:
        for name, parts in parcel.files.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for part in parts:
                    file.write(memoryview(get(part)))
        check_files(partial, read_manifest(partial))
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return partial


def _is_whole(target: Path) -> bool:
    """Whether it is there, and nothing was taken from it since, as those do who clean temporary folders up."""
    try:
        check_files(target, read_manifest(target), hash_limit=HASH_LIMIT)
    except PackageError:
        return False
    return True


def _root() -> Path:
    """A folder that nobody else can write to: what lies in it is run. Raises BatchError."""
    root = Path(tempfile.gettempdir()) / f"edgellm-packages-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise BatchError(f"{root} is not a folder that only this user can write to; remove it on that node")
    return root


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl  # not there on Windows

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
