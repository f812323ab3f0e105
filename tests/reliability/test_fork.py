"""Models loaded before a fork: the child gets a clear error instead of waiting forever, and the parent goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import forking

KINDS = ["generate", "beams", "score", "stream", "translate", "classify"]


def run(how: str, packages: Path, threads: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", forking.__file__, how, str(packages), str(threads)]
    return subprocess.run(command, capture_output=True, text=True, timeout=5 * forking.PATIENCE)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("how", "children"), [("idle", 1), ("busy", 3), ("processes", 2)])
def test_a_child_is_refused(packages: Path, how: str, children: int, threads: int) -> None:
    ended = run(how, packages, threads)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(KINDS * children)
    for line in lines:
        assert "this model was loaded before the process forked" in line
        assert line.endswith("load it in the child, or start children with multiprocessing's 'spawn'")


@pytest.mark.parametrize("how", ["anew", "untouched"])
def test_a_child_that_does_not_use_what_it_inherits(packages: Path, how: str) -> None:
    ended = run(how, packages, threads=2)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
