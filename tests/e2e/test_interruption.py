"""An export that is stopped, killed or crashes: the old package is untouched, and nothing else stays behind."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import edgellm
import stopped_export
from edgellm.cli import cli
from edgellm.package.files import check_files, read_manifest
from edgellm.package.report import GenerationThresholds
from edgellm_export import pipeline
from edgellm_export.exporters import decoder as decoder_export
from edgellm_export.exporters import driver
from edgellm_export.package import output
from edgellm_export.quantize import blockwise
from edgellm_export.verification import report
from test_bad_input import contents

MOMENTS = ["weights", "package", "original", "compare", "rename"]
PARTIAL = re.compile(r"\.package\.[a-z0-9_]{8}\.partial")

Checkpoints = Callable[[str], Path]


@pytest.fixture
def old_package(package: Callable[..., Path], tmp_path: Path) -> Path:
    """A package of another model where the next export goes."""
    return Path(shutil.copytree(package("gpt2"), tmp_path / "place" / "package"))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


@contextmanager
def stopped(moment: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """An export in a process of its own, waiting at `moment`."""
    command = [sys.executable, stopped_export.__file__, moment, "export", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as child:
        assert child.stderr is not None
        try:
            assert child.stderr.readline() == f"stopped at {moment}\n"
            yield child
        finally:
            child.kill()


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        *((moment, signal.SIGINT) for moment in ("weights", "compare", "rename")),
        *((moment, signal.SIGTERM) for moment in ("weights", "package", "rename")),
    ],
)
def test_a_signal_leaves_the_old_package_alone(
    checkpoint: Checkpoints, old_package: Path, moment: str, number: signal.Signals
) -> None:
    before = contents(old_package.parent)
    with stopped(moment, checkpoint("llama"), old_package, "--force", "--precision", "fp32") as child:
        assert len(names(old_package.parent)) == 2
        child.send_signal(number)
        assert child.wait(timeout=30) == 128 + number
        assert child.stderr is not None
        assert child.stderr.read().split() in ([], ["interrupted"])
    assert contents(old_package.parent) == before


def test_a_signal_leaves_nothing(checkpoint: Checkpoints, tmp_path: Path) -> None:
    with stopped("weights", checkpoint("llama"), tmp_path / "made" / "package") as child:
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=30) == 143
    assert names(tmp_path) == []


@pytest.mark.parametrize("moment", ["weights", "rename"])
def test_a_killed_export_is_cleaned_up_by_the_next(checkpoint: Checkpoints, old_package: Path, moment: str) -> None:
    place, before = old_package.parent, contents(old_package)
    with stopped(moment, checkpoint("llama"), old_package, "--force", "--precision", "fp32") as child:
        child.send_signal(signal.SIGKILL)
        assert child.wait(timeout=30) == -signal.SIGKILL
    assert contents(old_package) == before
    assert edgellm.load(old_package, threads=1).generate("Hi", max_new_tokens=2).tokens
    partial, _ = names(place)
    assert PARTIAL.fullmatch(partial)
    assert run(checkpoint("llama"), old_package, "--force", "--no-verify").exit_code == 0
    assert names(place) == ["package"]
    assert read_manifest(old_package).model_type == "llama"


def test_only_what_nobody_uses_is_cleaned_up(checkpoint: Checkpoints, tmp_path: Path) -> None:
    """Another export to the same place, which is still running, keeps its directory; so do others' files."""
    others = [".package.notes.partial", ".package.abcdefgh.old", ".other.abcdefgh.partial", ".packagexabcdefgh.partial"]
    for name in [*others, ".package.abcdefgh.partial"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / ".package.linklink.partial").symlink_to(tmp_path / ".other.abcdefgh.partial")
    with stopped("rename", checkpoint("llama"), tmp_path / "package", "--precision", "fp32", "--no-verify"):
        kept = sorted([*others, ".package.linklink.partial"])
        (running,) = set(names(tmp_path)) - set(kept)
        assert PARTIAL.fullmatch(running)
        written = contents(tmp_path / running)
        assert run(checkpoint("llama"), tmp_path / "package", "--no-verify").exit_code == 0
        assert names(tmp_path) == sorted([*kept, running, "package"])
        assert contents(tmp_path / running) == written
    assert all((tmp_path / name / "file").is_file() for name in others)


def test_a_directory_that_was_taken_for_stale_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its making and its locking, another process may remove it."""
    made: list[Path] = []
    lock = output._lock

    def lose_the_first(descriptor: int) -> bool:
        made.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        if len(made) == 1:
            shutil.rmtree(made[0])
        return lock(descriptor)

    monkeypatch.setattr(output, "_lock", lose_the_first)
    with output.new_directory(tmp_path / "package", force=False, keep=lambda error: None) as work:
        assert work == made[1] != made[0]
    assert names(tmp_path) == ["package"]


def test_without_locks_an_export_works_and_cleans_nothing_up(
    checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*arguments: Any) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    (tmp_path / ".package.abcdefgh.partial").mkdir()
    assert run(checkpoint("llama"), tmp_path / "package", "--no-verify").exit_code == 0
    assert names(tmp_path) == [".package.abcdefgh.partial", "package"]


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (decoder_export, "verify"),
        (driver, "write_graph"),
        (pipeline, "write_side_files"),
        (pipeline, "seal"),
    ],
)
def test_a_crash_keeps_nothing(
    checkpoint: Checkpoints, old_package: Path, monkeypatch: pytest.MonkeyPatch, module: Any, step: str
) -> None:
    def crash(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("a mistake")

    before = contents(old_package.parent)
    monkeypatch.setattr(module, step, crash)
    result = run(checkpoint("llama"), old_package, "--force", "--keep-failed")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "unexpected RuntimeError: a mistake" in result.stderr
    assert contents(old_package.parent) == before


@pytest.fixture
def impossible_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(report.THRESHOLDS, "int8", GenerationThresholds(kl_divergence=-1.0, top1_agreement=2.0))


@pytest.mark.usefixtures("impossible_gate")
def test_a_failed_gate_keeps_nothing(checkpoint: Checkpoints, old_package: Path) -> None:
    before = contents(old_package.parent)
    result = run(checkpoint("llama"), old_package, "--force")
    assert (result.exit_code, result.stdout) == (6, "")
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: the int8 package is too far from the original: KL divergence ")
    assert error.endswith("export with a higher precision, or look at the result with --keep-failed")
    assert contents(old_package.parent) == before


@pytest.mark.usefixtures("impossible_gate")
def test_a_failed_package_is_kept_on_request(checkpoint: Checkpoints, old_package: Path) -> None:
    before, failed = contents(old_package), old_package.with_name("package.failed")
    for family in ("llama", "qwen2"):  # the second replaces the first
        result = run(checkpoint(family), old_package, "--force", "--keep-failed")
        assert result.exit_code == 6
        assert f"or look at {failed}" in result.stderr
        assert names(old_package.parent) == ["package", "package.failed"]
        assert contents(old_package) == before
        assert read_manifest(failed).model_type == family
        check_files(failed, read_manifest(failed))
        assert CliRunner().invoke(cli, ["inspect", str(failed), "--report"]).stdout.count("failed; least faithful") == 1


def test_a_damaged_quantizer_fails_the_gate(
    checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate is real: matrices whose rows come out in another order do not pass it."""
    arrange = blockwise.arrange

    def upside_down(*what: Any) -> blockwise.Blocks:
        blocks = arrange(*what)
        return replace(blocks, quants=blocks.quants[::-1])

    monkeypatch.setattr(blockwise, "arrange", upside_down)
    result = run(checkpoint("llama"), tmp_path / "package")
    assert (result.exit_code, result.stdout) == (6, "")
    assert "too far from the original" in result.stderr
    assert names(tmp_path) == []
