"""Progress of long commands."""

from __future__ import annotations

import sys

import pytest

from edgellm.commands.progress import shown_progress


def test_lines_by_quarters(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress({"a": "doing"}) as progress:
        for done in range(1, 10):
            progress("a", done, 9)
        progress("b", 0, 0)
    assert capsys.readouterr().err.splitlines() == [*(f"doing: {share}%" for share in (25, 50, 75, 100)), "b: 100%"]


def test_a_terminal_without_rich_has_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation needs no library to say how far it is; the exporter's extra brings rich."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with shown_progress({"a": "doing"}) as progress:
        progress("a", 1, 1)
    assert capsys.readouterr().err == "doing: 100%\n"
