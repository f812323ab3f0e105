"""From what the user typed to an open checkpoint: a directory, a .gguf file, or a hub id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edgellm.errors import CheckpointError, CheckpointNotFoundError, system_errors
from edgellm.package.manifest import MANIFEST_NAME
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.gguf import open_gguf
from edgellm_export.sources.choice import ORDER
from edgellm_export.sources.directory import file_names, open_directory
from edgellm_export.sources.hub import fetch, fetch_headers
from edgellm_export.weights.safetensors import hollow_directory

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def open_checkpoint(
    source: str, *, revision: str | None = None, cache_dir: Path | None = None, weights: bool = True
) -> Checkpoint:
    """Open the checkpoint directory, GGUF file or hub id `source`; an existing path wins over a hub id.

    `revision` and `cache_dir` apply to hub ids. Without `weights`, no weight of the result can be read, and those of a
    hub id are not downloaded. Reads headers and small files; weights are read slice by slice later.
    Raises CheckpointNotFoundError, CheckpointError, TensorError or UnsupportedModelError.
    """
    path = Path(source).expanduser()
    if _exists(path):
        if revision is not None:
            raise CheckpointError(
                f"{source} is a local path, which has no revision {revision!r}; leave the revision out"
            )
        with system_errors(
            CheckpointError,
            lambda error: f"{error.filename or path} cannot be read: {error.strerror}; check its permissions",
        ):
            return _open_path(path)
    if HUB_ID.fullmatch(source) and not source.endswith(".gguf"):
        snapshot = fetch(source, revision=revision, cache_dir=cache_dir, weights=weights)
        origin = {"name": source, "revision": snapshot.revision}
        if not snapshot.absent:
            return open_directory(snapshot.path, origin)
        with hollow_directory(snapshot.path, fetch_headers(source, snapshot)) as directory:
            return open_directory(directory, origin)
    raise CheckpointNotFoundError(
        f"no checkpoint at {source}; expected a checkpoint directory, a .gguf file, or a hub id such as org/name"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long a name, or below a directory that may not be searched
        return False


def _open_path(path: Path) -> Checkpoint:
    if (path / MANIFEST_NAME).is_file():
        raise CheckpointError(f"{path} is an edgellm package already; give the checkpoint that it was exported from")
    if path.is_dir():
        if files := _only_gguf(path):
            return _open_gguf_directory(path, files)
        return open_directory(path, {"name": path.resolve().name})
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF" or path.suffix == ".gguf":
        return open_gguf(path)
    if path.suffix in (".safetensors", ".bin", ".h5"):
        raise CheckpointError(f"{path} is a weight file alone; give its directory, which also holds config.json")
    raise CheckpointError(f"{path} is neither a checkpoint directory nor a GGUF file")


def _only_gguf(path: Path) -> list[str]:
    """The GGUF files of a directory that has no weights of another kind."""
    names = file_names(path)
    return [] if names & {file.name for file in ORDER} else sorted(name for name in names if name.endswith(".gguf"))


def _open_gguf_directory(path: Path, files: Sequence[str]) -> Checkpoint:
    """The one place that knows of directories of GGUF files."""
    if len(files) > 1:
        raise CheckpointError(f"{path} has several GGUF files, {', '.join(files[:5])}; give one of them by its path")
    return open_gguf(path / files[0])
