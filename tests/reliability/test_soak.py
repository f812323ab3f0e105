"""The soak in short: a process that answers some hundred calls of every kind neither grows nor keeps anything, and one
that does is found out. `make soak` runs the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import soak

SHORT = ("--warm-up", "200", "--limit", "0.05")  # the long run has 10,000 and 0.02


def run(packages: Path, generations: int, *options: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: torch, which other tests have loaded, would hide what grows."""
    command = [sys.executable, soak.__file__, "--packages", str(packages), "--generations", str(generations)]
    return subprocess.run([*command, *SHORT, *options], capture_output=True, text=True, timeout=300)


def test_nothing_grows_and_nothing_is_left(packages: Path) -> None:
    ended = run(packages, 200)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"400 calls of {len(soak.CALLS)} kinds" in ended.stdout


def test_a_leak_is_found(packages: Path) -> None:
    """200 kB a call, which is 20 MB behind the warm-up."""
    ended = run(packages, 100, "--leak", "200000", "--warm-up", "50")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "held memory grew by" in ended.stdout


def a_look(calls: int, **changes: int) -> soak.Look:
    values = {
        "allocated": 90,
        "blocks": 9,
        "resident": 100,
        "held": 100,
        "threads": 5,
        "handles": 7,
        "mappings": 300,
        "objects": 1000,
        **changes,
    }
    return soak.Look(calls, 0.0, **values)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"held": 103}, "held memory grew by 3.0%"),
        ({"resident": 103}, "resident memory grew by 3.0%"),
        ({"threads": 6}, "threads: [5, 6], 5 at first and 6 at last"),
        ({"handles": 8}, "handles: [7, 8], 7 at first and 8 at last"),
        ({"mappings": 330}, "mappings: [300, 330], 300 at first and 330 at last"),
    ],
)
def test_what_counts_as_growth(changes: dict[str, int], words: str) -> None:
    looks = tuple(a_look(i, **(changes if i > 50 else {})) for i in range(100))
    found = soak.problems(soak.Soak(looks, a_look(0), a_look(100), soak.Counter(), 1.0), 0.02)
    assert found == ([words] if words and "grew" not in words else found)
    assert words in "\n".join(found)
    assert bool(found) == bool(words)


def test_what_is_left_in_the_end() -> None:
    after = a_look(100, threads=6, handles=9)
    found = soak.problems(soak.Soak((a_look(1),) * 20, a_look(0), after, soak.Counter(), 1.0), 0.02)
    assert found == [
        "1 threads left when all models were dropped",
        "2 handles left when all models were dropped",
    ]
