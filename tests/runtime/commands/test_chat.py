"""`edgellm chat` in this process and on a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import edgellm
from edgellm.cli import cli
from edgellm.commands.chat import Conversation
from edgellm.generation.results import Piece

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


def run(*arguments: str | Path, stdin: bytes | None = None, **extra: Any) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)), input=stdin, **extra)


def test_chat_answers_one_message(package: Path, model: edgellm.Model) -> None:
    result = run("chat", package, "Hello", "--system", "Be brief.", "--max-new-tokens", 6)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert result.stdout == model.chat(messages, max_new_tokens=6).text + "\n"


def test_chat_remembers_what_was_said(package: Path, model: edgellm.Model) -> None:
    result = run("chat", package, "--max-new-tokens", 4, stdin=b"Hello\nAnd you?\n")
    first = model.chat([{"role": "user", "content": "Hello"}], max_new_tokens=4).text
    messages = [("user", "Hello"), ("assistant", first), ("user", "And you?")]
    second = model.chat([{"role": role, "content": text} for role, text in messages], max_new_tokens=4).text
    assert result.stdout == f"{first}\n{second}\n"


def test_a_chat_goes_on_in_its_file(package: Path, model: edgellm.Model, tmp_path: Path) -> None:
    file = tmp_path / "talk.session"
    options = ["--session", file, "--max-new-tokens", 4]
    first = run("chat", package, "A", "--system", "S", *options).stdout.removesuffix("\n")
    loaded = model.load_session(file)
    messages = [("system", "S"), ("user", "A"), ("assistant", first)]
    assert loaded.metadata["messages"] == [{"role": role, "content": text} for role, text in messages]
    assert len(loaded.tokens) > 20
    again = run("chat", package, "B", "--system", "S", *options)
    asked = [*loaded.metadata["messages"], {"role": "user", "content": "B"}]
    assert again.stdout == model.chat(asked, max_new_tokens=4).text + "\n"
    third = run("chat", package, *options, stdin=b"C\n")
    assert third.exit_code == 0
    assert [message["role"] for message in model.load_session(file).metadata["messages"]] == [
        "system", *["user", "assistant"] * 3
    ]  # fmt: skip
    other = run("chat", package, "D", "--system", "T", *options)
    assert (other.exit_code, other.stdout) == (2, "")
    assert "--system is not what the conversation in the session's file began with" in other.stderr
    assert len(model.load_session(file).metadata["messages"]) == 7


def test_what_was_said_is_saved_after_an_error(package: Path, model: edgellm.Model, tmp_path: Path) -> None:
    file = tmp_path / "s"
    result = run("chat", package, "--session", file, "--max-new-tokens", 3, stdin=b"Hi\n" + b"x" * 200 + b"\n")
    assert result.exit_code == 2
    assert [message["role"] for message in model.load_session(file).metadata["messages"]] == ["user", "assistant"]


@pytest.fixture
def _signals_count() -> Iterator[None]:
    """What this process was told to ignore, as nohup does, its children would ignore too."""
    ignored = [each for each in SIGNALS if signal.getsignal(each) == signal.SIG_IGN]
    for each in ignored:
        signal.signal(each, signal.SIG_DFL)
    yield
    for each in ignored:
        signal.signal(each, signal.SIG_IGN)


@pytest.mark.usefixtures("_signals_count")
@pytest.mark.parametrize("number", SIGNALS)
def test_what_was_said_is_saved_when_the_program_is_ended(
    package: Path, model: edgellm.Model, tmp_path: Path, number: int
) -> None:
    file = tmp_path / "s"
    command = [sys.executable, "-m", "edgellm", "chat", package, "--session", file, "--max-new-tokens", "3"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"Hi\n")
        child.stdin.flush()
        assert child.stdout.readline().endswith(b"\n")
        time.sleep(0.2)
        child.send_signal(number)
        assert child.wait(timeout=30) == 128 + number
    assert [message["role"] for message in model.load_session(file).metadata["messages"]] == ["user", "assistant"]


def test_files_that_no_chat_can_use(package: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("Hello")
    for file, message in (
        (tmp_path / "text", "cannot be loaded: it does not begin as a saved session does"),
        (tmp_path, "cannot be saved to"),
        (tmp_path / "no" / "s", "cannot be saved to"),
    ):
        result = run("chat", package, "Hi", "--session", file)
        assert (result.exit_code, result.stdout) == (3, "")
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert (tmp_path / "text").read_text() == "Hello"


class SlowModel:
    """Streams words until it is cancelled; Ctrl-C comes after the second."""

    def stream_chat(self, messages: Any, *, cancel: Any, **options: Any) -> Iterator[Piece]:
        for number in range(100):
            if number == 2:
                signal.raise_signal(signal.SIGINT)
            if cancel.is_set():
                yield Piece("", (), None, "cancelled")
                return
            yield Piece(f"word{number} ", (number,), None, None)


def test_ctrl_c_stops_an_answer_and_keeps_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    conversation = Conversation(SlowModel(), [], {}, None)  # type: ignore[arg-type]
    assert conversation.answer("Hi") == "cancelled"
    assert capsys.readouterr().out == "word0 word1 \n"
    assert conversation.messages[-1] == {"role": "assistant", "content": "word0 word1 "}
    assert signal.getsignal(signal.SIGINT) == before


def test_chat_on_a_terminal(package: Path) -> None:
    """Ctrl-C at the prompt drops the line, an error does not end the conversation, Ctrl-D leaves."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "edgellm", "chat", str(package), "--max-new-tokens", "3", "--threads", "1"]
    child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    seen = _until(master, b"> ")
    time.sleep(0.5)  # Python's readline sleeps through a signal that comes between its prompt and its waiting
    child.send_signal(signal.SIGINT)
    seen += _until(master, b"> ")
    os.write(master, b"x" * 200 + b"\n")  # beyond the context
    seen += _until(master, b"error: ") + _until(master, b"> ")
    os.write(master, b"Hello\n")
    seen += _until(master, b"> ")
    os.write(master, b"\x04")
    assert child.wait(timeout=30) == 0
    os.close(master)
    assert b"Ctrl-D leaves" in seen
    assert b"context is 96" in seen
    assert b"Traceback" not in seen


def _until(file: int, text: bytes) -> bytes:
    seen = b""
    while not seen.endswith(text):
        assert select.select([file], [], [], 60)[0], f"nothing after {seen!r}"
        seen += os.read(file, 1)
    return seen
