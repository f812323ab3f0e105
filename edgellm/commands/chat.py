"""edgellm chat: talk to a package."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import edgellm
from edgellm.commands.options import (
    chosen,
    decode,
    generation_options,
    one_line,
    package_argument,
    read_text,
    stats_option,
    tell_incomplete,
)
from edgellm.commands.stats import Stats
from edgellm.errors import EdgellmError, InputError
from edgellm.loading import load_as
from edgellm.sessions.file import check_writable
from edgellm.sessions.saving import check_savable
from edgellm.text.messages import check_messages

PROMPT = "> "
INTERRUPTED = "cancelled"  # the finish reason of an answer that Ctrl-C ended


@click.command()
@package_argument
@click.argument("message", required=False)
@click.option("--system", help="A system message to begin with.")
@click.option(
    "--session",
    "saved",
    type=click.Path(path_type=Path),
    help="Go on with the conversation in this file, if it is there, and save it there in the end.",
)
@generation_options
@stats_option
def chat(
    package: Path,
    message: str | None,
    system: str | None,
    saved: Path | None,
    device: Any,
    threads: int | None,
    kv_cache: Any,
    stats: bool,
    **arguments: Any,
) -> None:
    """Chat with the package PKG.

    With a MESSAGE, print the answer to it and leave; "-" reads it from standard input. Without one, answer each line
    that is typed, remembering the conversation: Ctrl-C stops an answer, Ctrl-D leaves.
    """
    text = None if message is None else read_text(message)
    if saved is not None:
        check_writable(saved)
    measured = Stats()
    model = load_as(edgellm.Model, package, device=device, threads=threads, kv_cache=kv_cache)
    measured.loaded()
    with _opened(model, saved) as session:
        messages = _messages(session, system)
        conversation = Conversation(session, messages, chosen(arguments), measured if stats else None)
        if text is not None:
            if conversation.answer(text) == INTERRUPTED:
                raise click.Abort
        elif sys.stdin.isatty():
            _talk(conversation)
        else:
            for line in sys.stdin.buffer:
                if conversation.answer(decode(line).rstrip("\r\n")) == INTERRUPTED:
                    raise click.Abort


class Conversation:
    """A chat on a session: `messages` are those so far, to which the next ones are added."""

    def __init__(
        self,
        session: edgellm.GenerationSession,
        messages: list[dict[str, str]],
        options: dict[str, Any],
        measured: Stats | None,
    ) -> None:
        self._session = session
        self._options = options
        self._measured = measured
        self.messages = messages

    def answer(self, text: str) -> str | None:
        """Print the answer to `text`; both are remembered if there is any. Returns the finish reason.

        Ctrl-C meanwhile ends the answer, not the program.
        """
        question = {"role": "user", "content": text}
        parts, finish_reason, dropped, complete = [], None, 0, None
        with _cancel_on_ctrl_c() as cancel:
            pieces = self._session.stream_chat([*self.messages, question], cancel=cancel, **self._options)
            with contextlib.closing(pieces):  # type: ignore[type-var]
                for piece in self._measured.timed(pieces) if self._measured else pieces:
                    click.echo(piece.text, nl=False)
                    parts.append(piece.text)
                    finish_reason, complete = piece.finish_reason, piece.complete
                    dropped += piece.dropped_tokens
        click.echo()
        if finish_reason != INTERRUPTED:
            tell_incomplete(complete)
        if dropped:
            click.echo(f"the context is full: {dropped} tokens of the conversation were left out", err=True)
        if any(parts):
            self.messages += [question, {"role": "assistant", "content": "".join(parts)}]
        if self._measured:
            click.echo(self._measured.line(), err=True)
        return finish_reason


@contextlib.contextmanager
def _opened(model: edgellm.Model, saved: Path | None) -> Iterator[edgellm.GenerationSession]:
    """A session; with a file it is that of the file, if it is there, and is saved there in the end, whatever ended
    it."""
    if saved is None:
        with model.session() as session:
            yield session
        return
    check_savable(model.manifest)
    with model.load_session(saved) if saved.exists() else model.session() as session:
        try:
            yield session
        finally:
            session.save(saved)


def _messages(session: edgellm.GenerationSession, system: str | None) -> list[dict[str, str]]:
    """The messages of the session's file, to which `Conversation` adds. Raises InputError where they are none, or begin
    with another system message than the one asked for."""
    messages: list[dict[str, str]] = session.metadata.setdefault("messages", [])
    if messages:
        check_messages(messages)
    if system is None:
        return messages
    asked = {"role": "system", "content": system}
    if not messages:
        messages.append(asked)
    elif messages[0] != asked:
        raise InputError("--system is not what the conversation in the session's file began with; leave it out")
    return messages


@contextlib.contextmanager
def _cancel_on_ctrl_c() -> Iterator[threading.Event]:
    cancel = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)  # a second Ctrl-C does what it always does
        cancel.set()

    if before == signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield cancel
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield cancel
    finally:
        signal.signal(signal.SIGINT, before)


def _talk(conversation: Conversation) -> None:
    """Answer lines from a terminal until Ctrl-D. An error ends its answer, not the conversation."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() a history and arrow keys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # at the prompt, Ctrl-C only drops the line
    click.echo("Ctrl-C stops an answer, Ctrl-D leaves.", err=True)
    while True:
        try:
            text = _read_line()
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo(err=True)
            continue
        if text.strip():
            try:
                conversation.answer(text)
            except EdgellmError as error:
                click.echo(f"error: {one_line(str(error))}", err=True)


def _read_line() -> str:
    """A line from the terminal. input() would write its prompt to stdout, which may be a file."""
    if sys.stdout.isatty():
        return input(PROMPT)
    click.echo(PROMPT, err=True, nl=False)
    return input()
