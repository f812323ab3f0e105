"""Packages that are made once per run and shared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MAKER = Path(__file__).with_name("packages.py")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a package of each kind: decoder, decoder-int8, decoder-attentions, encoder-decoder, encoder."""
    made = tmp_path_factory.mktemp("reliability")
    subprocess.run([sys.executable, str(MAKER), str(made)], check=True, capture_output=True)
    return made
