"""Ctrl-C, SIGTERM and SIGHUP: a command that is told to end unwinds, so that it can clean up behind itself."""

from __future__ import annotations

import signal
from typing import NoReturn

import click

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
UNTOUCHED = (signal.SIG_DFL, signal.default_int_handler)

_received: list[int] = []


def install() -> None:
    """Let signals raise from now on. Those that are ignored stay so: nohup and shells' background jobs ask for it."""
    for number in SIGNALS:
        if signal.getsignal(number) in UNTOUCHED:
            signal.signal(number, _leave)


def raise_if_received() -> None:
    """Raises again what a signal raised, where the library that was interrupted made something else of it."""
    if _received:
        raise Ended(_received[0])


class Ended(click.exceptions.Exit):
    """The program was told to end; its exit status says by which signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


def _leave(number: int, frame: object) -> NoReturn:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # another one must not cut the cleaning up short
    _received.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
