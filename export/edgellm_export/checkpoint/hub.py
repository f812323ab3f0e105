"""Hub ids: download what an export needs and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import CheckpointError


@dataclass(frozen=True)
class Snapshot:
    path: Path
    revision: str


def fetch(repo: str, *, revision: str | None, cache_dir: Path | None) -> Snapshot:
    raise CheckpointError(f"{repo}: downloading is not there yet; give a local directory")
