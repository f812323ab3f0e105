"""From what the user typed to an open checkpoint: a directory, a .gguf file, or a hub id, and which of several GGUF
files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError, CheckpointNotFoundError, system_errors
from edgellm.package.manifest import MANIFEST_NAME
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.json_file import read_json
from edgellm_export.gguf import open_gguf
from edgellm_export.sources.adapter import ADAPTER_CONFIG, AdapterFiles, open_adapter_directory, refuse_adapter
from edgellm_export.sources.choice import CONFIG
from edgellm_export.sources.directory import file_names, open_directory
from edgellm_export.sources.gguf_choice import GgufChoice, choose, gguf_choices, is_only_gguf, split_tag
from edgellm_export.sources.hub import fetch, fetch_adapter, fetch_headers
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
    place, tag = (source, None) if _exists(local_path(source)) else split_tag(source)
    path = local_path(place)
    if _exists(path):
        if revision is not None:
            raise CheckpointError(
                f"{source} is a local path, which has no revision {revision!r}; leave the revision out"
            )
        with _readable(path):
            return _open_path(path, tag)
    if HUB_ID.fullmatch(place) and not place.endswith(".gguf"):
        snapshot = fetch(place, revision=revision, cache_dir=cache_dir, weights=weights, tag=tag)
        _check_no_adapter(snapshot.path, place)
        origin = {"name": place, "revision": snapshot.revision}
        if snapshot.gguf is not None:
            return open_gguf(snapshot.path / snapshot.gguf, origin)
        if choices := _gguf_choices(snapshot.path, tag):  # of the cache, where the hub cannot be asked
            return _open_gguf_directory(snapshot.path, place, choices, tag, origin)
        if not snapshot.absent:
            return open_directory(snapshot.path, origin)
        with hollow_directory(snapshot.path, fetch_headers(place, snapshot)) as directory:
            return open_directory(directory, origin)
    raise CheckpointNotFoundError(
        f"no checkpoint at {source}; expected a checkpoint directory, a .gguf file, or a hub id such as org/name"
    )


def open_adapter(source: str, *, cache_dir: Path | None = None, weights: bool = True) -> AdapterFiles:
    """Open the adapter directory or hub id `source`, as `open_checkpoint` does with a checkpoint. Raises
    CheckpointError."""
    path = local_path(source)
    if _exists(path):
        with _readable(path):
            return open_adapter_directory(path, source, {"name": path.resolve().name})
    if HUB_ID.fullmatch(source):
        snapshot = fetch_adapter(source, cache_dir=cache_dir, weights=weights)
        origin = {"name": source, "revision": snapshot.revision}
        if not snapshot.absent:
            return open_adapter_directory(snapshot.path, source, origin)
        with hollow_directory(snapshot.path, fetch_headers(source, snapshot)) as directory:
            return open_adapter_directory(directory, source, origin)
    raise CheckpointNotFoundError(
        f"no adapter at {source}; expected a directory in which PEFT saved one, or a hub id such as org/name"
    )


def _readable(path: Path) -> AbstractContextManager[None]:
    return system_errors(
        CheckpointError,
        lambda error: f"{error.filename or path} cannot be read: {error.strerror}; check its permissions",
    )


def local_path(source: str) -> Path:
    return Path(os.path.expanduser(source))  # Path's own fails where no user has the name behind ~


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long a name, or below a directory that may not be searched
        return False


def _open_path(path: Path, tag: str | None) -> Checkpoint:
    if (path / MANIFEST_NAME).is_file():
        raise CheckpointError(f"{path} is an edgellm package already; give the checkpoint that it was exported from")
    _check_no_adapter(path, str(path))
    if path.is_dir():
        if choices := _gguf_choices(path, tag):
            return _open_gguf_directory(path, str(path), choices, tag)
        return open_directory(path, {"name": path.resolve().name})
    if tag is not None:
        raise CheckpointNotFoundError(f"{path} is a file, and {tag!r} names one in a directory; leave :{tag} out")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF" or path.suffix == ".gguf":
        return open_gguf(path)
    if path.suffix in (".safetensors", ".bin", ".h5"):
        raise CheckpointError(f"{path} is a weight file alone; give its directory, which also holds config.json")
    raise CheckpointError(f"{path} is neither a checkpoint directory nor a GGUF file")


def _check_no_adapter(path: Path, where: str) -> None:
    if (path / ADAPTER_CONFIG).is_file():
        raise refuse_adapter(read_json(path / ADAPTER_CONFIG), where, beside_model=(path / CONFIG).is_file())


def _gguf_choices(path: Path, tag: str | None) -> Sequence[GgufChoice]:
    """The GGUF models of a directory, if it has no other weights or `tag` asks for one."""
    names = file_names(path)
    if tag is None and not is_only_gguf(names):
        return []
    choices = gguf_choices(names)
    return [choose(str(path), [], tag)] if tag is not None and not choices else choices


def _open_gguf_directory(
    path: Path, where: str, choices: Sequence[GgufChoice], tag: str | None, origin: Mapping[str, Any] | None = None
) -> Checkpoint:
    """`where`: the directory or repository as the user calls it."""
    return open_gguf(path / choose(where, choices, tag).files[0], origin)
