"""Small files of /proc and /sys. They may be missing, unreadable or odd anywhere: then there is no value."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def read_int(path: Path, base: int = 10) -> int | None:
    text = read_text(path)
    try:
        return None if text is None else int(text, base)
    except ValueError:
        return None


def find(root: Path, pattern: str) -> list[Path]:
    """Paths below `root` that match, sorted; none where a directory cannot be read."""
    try:
        return sorted(root.glob(pattern))
    except OSError:
        return []
