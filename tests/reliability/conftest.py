"""Packages that are made once per run and shared."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MAKER = Path(__file__).with_name("packages.py")


@pytest.fixture(scope="session")
def packages(shared: Callable[[str, Callable[[Path], Any]], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a package of each kind: decoder, decoder-int8, decoder-attentions, encoder-decoder, encoder.

    Of each worker its own: no process may be left that works in it."""
    command = [sys.executable, str(MAKER)]
    made = shared("reliability", lambda path: subprocess.run([*command, path], check=True, capture_output=True))
    return shutil.copytree(made, tmp_path_factory.mktemp("reliability") / "packages")
