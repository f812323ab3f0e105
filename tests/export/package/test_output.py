"""A directory that appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgellm.errors import OutOfSpaceError, OutputExistsError
from edgellm_export.package import output
from edgellm_export.package.output import check_target, new_directory


class Stopped(BaseException):
    """Like KeyboardInterrupt, which is no Exception either."""


def nothing(error: BaseException) -> None:
    return None


def put(directory: Path, text: str) -> None:
    (directory / "edgellm.json").write_text(text)


def make(
    target: Path, *, keep: Callable[[BaseException], Path | None] = nothing, error: BaseException | None = None
) -> None:
    """A new package in place of what is there; or not, where there is an error."""
    with new_directory(target, force=True, keep=keep) as work:
        put(work, "new")
        if error is not None:
            raise error


def tree(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A package that is there."""
    path = tmp_path / "package"
    path.mkdir()
    put(path, "old")
    return path


def test_a_new_directory_and_its_parents(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "package"
    with new_directory(target, force=False, keep=nothing) as work:
        assert work.parent == target.parent
        assert not target.exists()
        put(work, "new")
    assert tree(tmp_path) == {"a/b/package/edgellm.json": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stopped])
def test_after_an_error_nothing_is_left(error: type[BaseException], tmp_path: Path) -> None:
    """Nor any of the directories above."""
    with pytest.raises(error):
        make(tmp_path / "a" / "package", error=error())
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("exchange", [True, False], ids=["in one step", "in two"])
def test_a_package_is_replaced(exchange: bool, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system cannot exchange two directories, by two renames."""
    if not exchange:
        monkeypatch.setattr(output, "_exchange", lambda a, b: False)
    with new_directory(target, force=True, keep=nothing) as work:
        put(work, "new")
        assert tree(target) == {"edgellm.json": "old"}
    assert tree(target.parent) == {"package/edgellm.json": "new"}
    assert os.listdir(target.parent) == ["package"]


def test_the_old_package_outlives_a_failure(target: Path) -> None:
    with pytest.raises(Stopped):
        make(target, error=Stopped())
    assert tree(target.parent) == {"package/edgellm.json": "old"}


def test_the_old_package_is_put_back(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the second of two renames fails."""
    monkeypatch.setattr(output, "_exchange", lambda a, b: False)
    rename = Path.rename

    def refused(self: Path, to: Path) -> Path:
        if self.name.endswith(".partial"):
            raise PermissionError(13, "Permission denied")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OutOfSpaceError):
        make(target)
    assert tree(target.parent) == {"package/edgellm.json": "old"}


def test_what_failed_is_kept_where_the_caller_says(tmp_path: Path) -> None:
    kept = tmp_path / "failed"
    with pytest.raises(ValueError, match="bad"):
        make(tmp_path / "package", keep=lambda error: kept if str(error) == "bad" else None, error=ValueError("bad"))
    assert tree(tmp_path) == {"failed/edgellm.json": "new"}


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """But not what a living one holds, nor what only looks like it."""
    stale, others = tmp_path / ".package.abcdefg1.partial", (".other.abcdefg1.partial", ".package.ABC.partial")
    for path in (stale, *(tmp_path / name for name in others)):
        path.mkdir()
    with new_directory(tmp_path / "package", force=False, keep=nothing) as first:
        assert not stale.exists()
        with new_directory(tmp_path / "package", force=False, keep=nothing) as second:
            assert first.exists()
            put(second, "second")
        put(first, "first")
    assert tree(tmp_path) == {"package/edgellm.json": "first"}
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "package"])


def test_what_is_replaced(target: Path) -> None:
    with pytest.raises(OutputExistsError, match="replace it with --force"):
        check_target(target, force=False)
    check_target(target, force=True)
    check_target(target.parent / "nothing", force=False)
    (target / "edgellm.json").unlink()
    check_target(target, force=True)  # an empty directory
    (target / "letters.txt").write_text("dear")
    for path in (target, target / "letters.txt"):
        with pytest.raises(OutputExistsError, match="is not an edgellm package"):
            check_target(path, force=True)


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    make(tmp_path / "package")
    assert (tmp_path / "package").stat().st_mode & 0o777 == 0o755
