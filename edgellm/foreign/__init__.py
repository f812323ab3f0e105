"""Directories without edgellm.json, made by other tools, run as they are: a file here for each kind of directory."""

from __future__ import annotations

from pathlib import Path

from edgellm.foreign.exported import read_exported
from edgellm.foreign.files import FOLDERS, roles_in
from edgellm.foreign.genai import find_genai, read_genai
from edgellm.package.manifest import Manifest


def is_foreign(path: Path) -> bool:
    """Whether `path` is one of another tool's graphs, or a directory of them."""
    if path.suffix == ".onnx" or find_genai(path) is not None:
        return True
    return any(roles_in(path, folder, "") for folder in FOLDERS)


def read_foreign(path: Path) -> tuple[Path, Manifest]:
    """The directory, and a manifest without hashes. Raises PackageError where edgellm cannot run what is there.

    `path`: the directory, or one of its graphs, whose suffix then chooses among several precisions.
    """
    root = find_genai(path)
    return read_exported(path) if root is None else (root, read_genai(root))
