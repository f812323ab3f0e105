"""A program that ends during a generation ends at once, with its own exit status, and does not crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ending

TIMES = [1, pytest.param(40, marks=pytest.mark.soak)]


def run(how: str, package: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ending.__file__, how, str(package), str(seconds)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("how", [name for name in ending.HOW if name not in ("interrupted", "error_beside_a_daemon")])
def test_the_exit_status_is_the_programs_own(packages: Path, how: str, times: int) -> None:
    for turn in range(times):
        ended = run(how, packages / "decoder", 0.007 * turn)
        assert (ended.returncode, ended.stdout, ended.stderr) == (ending.STATUS, "", "")


@pytest.mark.parametrize("times", TIMES)
def test_ctrl_c_during_a_generation(packages: Path, times: int) -> None:
    for turn in range(times):
        ended = run("interrupted", packages / "decoder-int8", 0.05 + 0.007 * turn)
        assert ended.returncode == -2
        assert ended.stderr.splitlines()[-1] == "KeyboardInterrupt"


@pytest.mark.parametrize("times", TIMES)
def test_an_error_beside_a_daemon(packages: Path, times: int) -> None:
    for turn in range(times):
        ended = run("error_beside_a_daemon", packages / "decoder", 0.007 * turn)
        assert ended.returncode == 1
        assert ended.stderr.splitlines()[-1] == "RuntimeError: a mistake of the program's own"
