"""What `edgellm batch` shows of how far it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgellm.bulk import Status, Summary
from edgellm.commands import batch


def status(done: int, remaining_s: float | None = 80.0, failed: int = 0) -> Status:
    return Status(400, done, 0, failed, prompt_tokens=900, new_tokens=500, elapsed_s=2.0, remaining_s=remaining_s)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599.6, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert batch.duration(seconds) == text


def test_a_line_of_progress() -> None:
    assert batch.text_of(status(120, failed=3)) == "120 of 400 lines, 3 failed, 250 tokens/s, 1 min 20 s left"
    assert batch.text_of(status(0, None)) == "0 of 400 lines, 250 tokens/s"
    assert batch.text_of(status(400)) == "400 of 400 lines, 250 tokens/s"


def test_the_last_line() -> None:
    summary = Summary(Path("out.csv"), 9, 7, 2, 4, 900, 500, 61.0)
    assert batch.line_of(summary) == (
        "9 lines: 7 answered, 2 failed, 4 reused; 900 tokens read, 500 new in 1 min 1 s; out.csv"
    )


def test_a_line_now_and_then_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(batch.time, "monotonic", lambda: now[0])
    with batch._shown() as progress:
        for second in range(25):
            now[0] = second
            progress(status(second))
    assert [line.split(" ")[0] for line in capsys.readouterr().err.splitlines()] == ["10", "20"]


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with batch._shown() as progress:
        progress(status(120))
    assert "120 of 400 lines" in capsys.readouterr().err.replace("\n", " ")


def test_stopped_before_anything_was_done_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), batch._shown():
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""
