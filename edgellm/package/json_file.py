"""JSON files of a package, read as the objects that they must hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgellm.errors import corrupt


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no such file. Raises PackageCorruptError for anything else."""
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise corrupt(f"{path} is not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise corrupt(f"{path} holds a JSON {type(data).__name__}, expected an object")
    return data
