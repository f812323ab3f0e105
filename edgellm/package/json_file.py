"""JSON files of a package, read as the objects that they must hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgellm.errors import PackageCorruptError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no such file. Raises PackageCorruptError for anything else."""
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PackageCorruptError(f"{path} is not valid JSON ({error}); export the package again") from error
    if not isinstance(data, dict):
        raise PackageCorruptError(
            f"{path} holds a JSON {type(data).__name__}, expected an object; export the package again"
        )
    return data
