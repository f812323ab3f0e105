"""Where the peers' environments come from, and what happens without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from environments import Unreachable, install

PIP = [sys.executable, "-m", "pip", "--isolated", "--quiet", "--disable-pip-version-check", "install"]


def test_without_a_registry(tmp_path: Path) -> None:
    """Then, and only then, the tests that need a peer are skipped."""
    nowhere = ["--index-url", "http://127.0.0.1:9/simple", "--retries", "1"]
    with pytest.raises(Unreachable, match=r"no package registry can be reached.*edgellm-no-such"):
        install([*PIP, *nowhere, "--target", str(tmp_path), "edgellm-no-such"])


def test_a_failure_of_another_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        install([*PIP, "--no-index", "--target", str(tmp_path), "edgellm-no-such"])
    assert "edgellm-no-such" in capsys.readouterr().err
