"""SIGINT and SIGTERM at every stage of an export, of every kind of model: the package that was there is untouched (or
the new one is in its place, whole), nothing else is left, and the exit status names the signal."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import edgellm
import optimum_models
import stopped_export
from edgellm.package.files import check_files, read_manifest
from test_bad_input import contents

SIGNALS = [signal.SIGINT, signal.SIGTERM]
INT8_CACHE = ["--kv-cache", "int8"]  # and int8 weights: calibration of both
STAGES: list[tuple[str, list[str], str]] = [
    *(
        ("decoder", INT8_CACHE, stage)
        for stage in (
            "open", "side files", "calibrate", "calibrate cache", "weights", "seal", "package", "original", "compare",
            "sync", "rename", "removal",
        )
    ),
    *(("encoder", [], stage) for stage in ("calibrate", "weights", "package", "original")),
    *(("encoder-decoder", [], stage) for stage in ("calibrate", "weights", "package", "original")),
]  # fmt: skip
OPTIMUM = ["optimum", "package", "original", "rename"]


SHORT = {  # the others take minutes; tests/e2e/test_interruption.py has more of the short ones
    ("decoder", "calibrate cache", signal.SIGTERM),
    ("decoder", "removal", signal.SIGINT),
    ("encoder", "original", signal.SIGINT),
    ("encoder-decoder", "weights", signal.SIGTERM),
}


def cases() -> Iterator[Any]:
    for kind, options, stage in STAGES:
        for number in SIGNALS:
            marks = [] if (kind, stage, number) in SHORT else [pytest.mark.soak]
            yield pytest.param(kind, options, stage, number, marks=marks, id=f"{kind}-{stage}-{number.name}")


@pytest.fixture
def place(packages: Path, tmp_path: Path) -> Path:
    """A directory with a package of another model where the next export goes."""
    shutil.copytree(packages / "decoder-attentions", tmp_path / "place" / "package")
    return tmp_path / "place"


@contextmanager
def stopped(moment: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """An export in a process of its own, waiting at `moment`."""
    command = [sys.executable, stopped_export.__file__, moment, "export", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as child:
        assert child.stderr is not None
        try:
            lines = iter(child.stderr.readline, "")
            assert f"stopped at {moment}\n" in lines, "it never came there"
            yield child
        finally:
            child.kill()


def leave(child: subprocess.Popen[str], number: signal.Signals) -> None:
    """Sends the signal, and another one while it cleans up."""
    child.send_signal(number)
    child.send_signal(number)
    assert child.wait(timeout=60) == 128 + number
    assert child.stderr is not None
    assert child.stderr.read().split() in ([], ["interrupted"])


@pytest.mark.parametrize(("kind", "options", "stage", "number"), list(cases()))
def test_at_every_stage(
    packages: Path, place: Path, kind: str, options: list[str], stage: str, number: signal.Signals
) -> None:
    before = contents(place)
    source = packages / "checkpoints" / kind
    with stopped(stage, str(source), str(place / "package"), "--force", *options) as child:
        leave(child, number)
    if stage != "removal":
        assert contents(place) == before
        return
    assert [path.name for path in place.iterdir()] == ["package"]
    check_files(place / "package", read_manifest(place / "package"))
    assert "int8" in edgellm.load(place / "package", threads=1).info.cache_type  # type: ignore[union-attr]


@pytest.mark.soak
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("stage", OPTIMUM)
def test_at_every_stage_of_optimum(place: Path, tmp_path: Path, stage: str, number: signal.Signals) -> None:
    source = optimum_models.save_checkpoint(optimum_models.make_model("opt"), tmp_path / "checkpoint")
    before = contents(place)
    with stopped(stage, str(source), str(place / "package"), "--force", "--via", "optimum") as child:
        leave(child, number)
    assert contents(place) == before
