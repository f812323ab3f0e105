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
    device_option,
    generation_options,
    package_argument,
    stats_option,
    threads_option,
)
from edgellm.commands.stats import Stats
from edgellm.commands.text import decode, one_line, read_text
from edgellm.errors import EdgellmError
from edgellm.loading import load_as

PROMPT = "> "
INTERRUPTED = "cancelled"  # the finish reason of an answer that Ctrl-C ended


@click.command()
@package_argument
@click.argument("message", required=False)
@click.option("--system", help="A system message to begin with.")
@generation_options
@device_option
@threads_option
@stats_option
def chat(
    package: Path,
    message: str | None,
    system: str | None,
    device: Any,
    threads: int | None,
    stats: bool,
    **arguments: Any,
) -> None:
    """Chat with the package PKG.

    With a MESSAGE, print the answer to it and leave; "-" reads it from standard input. Without one, answer each line
    that is typed, remembering the conversation: Ctrl-C stops an answer, Ctrl-D leaves.
    """
    text = None if message is None else read_text(message)
    measured = Stats()
    model = load_as(edgellm.Model, package, device=device, threads=threads)
    measured.loaded()
    conversation = Conversation(model, system, chosen(arguments), measured if stats else None)
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
    """The messages so far, and the model that answers them."""

    def __init__(
        self, model: edgellm.Model, system: str | None, options: dict[str, Any], measured: Stats | None
    ) -> None:
        self._model = model
        self._options = options
        self._measured = measured
        self.messages = [] if system is None else [{"role": "system", "content": system}]

    def answer(self, text: str) -> str | None:
        """Print the answer to `text`; both are remembered if there is any. Returns the finish reason.

        Ctrl-C meanwhile ends the answer, not the program.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        parts, finish_reason = [], None
        with _cancel_on_ctrl_c() as cancel:
            pieces = self._model.stream_chat(messages, cancel=cancel, **self._options)
            for piece in self._measured.timed(pieces) if self._measured else pieces:
                click.echo(piece.text, nl=False)
                parts.append(piece.text)
                finish_reason = piece.finish_reason
        click.echo()
        if any(parts):
            self.messages = [*messages, {"role": "assistant", "content": "".join(parts)}]
        if self._measured:
            click.echo(self._measured.line(), err=True)
        return finish_reason


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
    """Lines from a terminal until Ctrl-D. An error ends its answer, not the conversation."""
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
    """input() writes its prompt to stdout, which may be a file."""
    if sys.stdout.isatty():
        return input(PROMPT)
    click.echo(PROMPT, err=True, nl=False)
    return input()
