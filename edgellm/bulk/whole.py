"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgellm.errors import BatchError, system_errors
from edgellm.system.directories import sync_directory

GO_ON = "what is done is kept: make room, and run the same command again"


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which has the name `path` when all of it is on the disk. Until then, and where a process is
    killed, it is .NAME.partial beside it, which the next one to write it replaces: only one may do so at a time. Raises
    BatchError."""
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.name}.partial")
    with system_errors(BatchError, lambda error: f"cannot write {path}: {error.strerror or error}; {GO_ON}"):
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        sync_directory(target.parent)
