"""From what the user typed to an open checkpoint: a directory, a .gguf file, or a hub id."""

from __future__ import annotations

import re
from pathlib import Path

from edgellm.errors import CheckpointError, CheckpointNotFoundError
from edgellm_export.checkpoint.contents import Checkpoint
from edgellm_export.checkpoint.directory import open_directory
from edgellm_export.checkpoint.gguf import open_gguf
from edgellm_export.checkpoint.hub import fetch

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def open_checkpoint(source: str, *, revision: str | None = None, cache_dir: Path | None = None) -> Checkpoint:
    """Open the checkpoint directory, GGUF file or hub id `source`; an existing path wins over a hub id.

    `revision` and `cache_dir` apply to hub ids. Reads headers and small files; weights are read slice by slice later.
    Raises CheckpointNotFoundError, CheckpointError, TensorError or UnsupportedModelError.
    """
    path = Path(source).expanduser()
    if path.exists():
        if revision is not None:
            raise CheckpointError(
                f"{source} is a local path, which has no revision {revision!r}; leave the revision out"
            )
        return _open_path(path)
    if HUB_ID.fullmatch(source) and not source.endswith(".gguf"):
        snapshot = fetch(source, revision=revision, cache_dir=cache_dir)
        return open_directory(snapshot.path, {"name": source, "revision": snapshot.revision})
    raise CheckpointNotFoundError(
        f"no checkpoint at {source}; expected a checkpoint directory, a .gguf file, or a hub id such as org/name"
    )


def _open_path(path: Path) -> Checkpoint:
    if path.is_dir():
        return open_directory(path, {"name": path.resolve().name})
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF" or path.suffix == ".gguf":
        return open_gguf(path)
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path} is a weight file alone; give its directory, which also holds config.json")
    raise CheckpointError(f"{path} is neither a checkpoint directory nor a GGUF file")
