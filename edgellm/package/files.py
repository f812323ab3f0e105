"""The files of a package: the manifest read and written, and all of them compared with what it says."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from edgellm.errors import PackageError, PackageNotFoundError, corrupt, system_errors
from edgellm.package.json_data import read_json
from edgellm.package.manifest import MANIFEST_NAME, Manifest


def read_manifest(package: Path) -> Manifest:
    """Read and validate the manifest of the package directory `package`; other files are not touched.

    Raises PackageNotFoundError, PackageVersionError or PackageCorruptError.
    """
    with read_errors(package):
        data = _read_json(package, package / MANIFEST_NAME)
    return Manifest.from_dict(data)


def _read_json(package: Path, path: Path) -> dict[str, Any]:
    if not package.is_dir():
        raise PackageNotFoundError(
            f"no package directory at {package}; make one with `edgellm export SOURCE {package}`"
        )
    if not path.is_file():
        raise PackageNotFoundError(
            f"{package} is not an edgellm package: it has no {MANIFEST_NAME}; "
            f"if it holds a checkpoint, export it with `edgellm export {package} OUT`"
        )
    return read_json(path)


def read_errors(package: Path) -> AbstractContextManager[None]:
    """The system's complaints (too long a name, no permission) as PackageError."""
    return system_errors(
        PackageError,
        lambda error: (
            f"no package can be read at {package}: {error.strerror} ({error.filename}); check path and permissions"
        ),
    )


def write_manifest(package: Path, manifest: Manifest) -> None:
    (package / MANIFEST_NAME).write_text(json.dumps(manifest.to_dict(), indent=2) + "\n", encoding="utf-8")


def check_files(package: Path, manifest: Manifest, *, hash_limit: int | None = None) -> None:
    """Check that every file the manifest lists is inside `package` with the recorded size and sha256.

    Files above `hash_limit` bytes are checked by size only (None: hash everything). Raises PackageCorruptError.
    """
    with read_errors(package):
        _check_files(package, manifest, hash_limit)


def _check_files(package: Path, manifest: Manifest, hash_limit: int | None) -> None:
    root = package.resolve()
    recorded = {name: entry for name, entry in manifest.files.items() if entry.sha256}
    for name, entry in recorded.items():
        path = package / name
        if not path.resolve().is_relative_to(root):
            raise corrupt(f"{name} in {package} leads outside the package")
        if not path.is_file():
            raise corrupt(f"{package} lacks {name}, which its manifest lists")
        size = path.stat().st_size
        if size != entry.size:
            raise corrupt(f"{path} has {size} bytes, its manifest says {entry.size}", or_copy=True)
        if (hash_limit is None or size <= hash_limit) and sha256_of(path) != entry.sha256:
            raise corrupt(
                f"{path} was changed after the export: its sha256 is not the one in the manifest", or_copy=True
            )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
