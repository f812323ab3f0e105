"""Names of files that a file gives: where they may lead."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, TypeGuard

LONGEST = 255  # bytes of a part, as file systems have them
LONGEST_PATH = 1024


def is_inside(name: Any) -> TypeGuard[str]:
    """Whether this is a relative path of plain names, short enough for a file system, which stays where it begins."""
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name:
        return False
    path = PurePosixPath(name)
    plain = not path.is_absolute() and ".." not in path.parts
    longest = max((_size(part) for part in path.parts), default=0)
    return plain and longest <= LONGEST and _size(name) <= LONGEST_PATH


def _size(name: str) -> int:
    return len(name.encode(errors="surrogatepass"))
