"""Text and JSON objects on disk, with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises CheckpointError."""
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); download it again") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a JSON {type(data).__name__}, expected an object")
    return data


def read_text(path: Path) -> str:
    """The UTF-8 text in `path`. Raises CheckpointError."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 text ({error}); download it again") from error
