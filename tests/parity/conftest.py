"""Situations made by both versions of transformers, and both versions as readers of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from edgellm_export.witness.process import Reader
from environments import Unreachable, python_of

Shared = Callable[[str, Callable[[Path], Any]], Path]


@pytest.fixture(scope="session")
def python() -> Callable[[str], str]:
    """The interpreter that has transformers 4.57 ("4") or the newest ("5")."""

    def interpreter(version: str) -> str:
        try:
            return python_of(f"transformers-{version}")
        except Unreachable as reason:
            pytest.skip(str(reason))

    return cache(interpreter)


@pytest.fixture(scope="session")
def made(shared: Shared, python: Callable[[str], str]) -> Callable[[str], Path]:
    """The directory of all situations as that version saves them."""
    program = str(Path(__file__).parent / "making.py")
    return lambda version: shared(
        f"situations-{version}", lambda out: subprocess.run([python(version), program, str(out)], check=True)
    )


@pytest.fixture(scope="session")
def reader(python: Callable[[str], str]) -> Iterator[Callable[[str], Reader]]:
    """That version, which reads checkpoints."""
    readers: dict[str, Reader] = {}

    def opened(version: str) -> Reader:
        if version not in readers:
            readers[version] = Reader(python(version))
        return readers[version]

    yield opened
    for each in readers.values():
        each.close()
