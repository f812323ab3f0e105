"""The inputs that are kept: valid ones to begin with, and every one that a parser once failed on."""

from __future__ import annotations

from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
PARTS = Path(__file__).parent / "parts"  # files that stay as they are beside a damaged one


def inputs_of(target: str) -> list[Path]:
    """A target's kept inputs, in the order of their names."""
    return sorted(path for path in (CORPUS / target).iterdir() if path.is_file())
