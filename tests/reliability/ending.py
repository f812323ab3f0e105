"""A program that ends in the middle of something: python ending.py HOW PACKAGE SECONDS. It loads a model, begins what
HOW says, and ends SECONDS later, where it has a say in that."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

at_exit: list[Callable[[], None]] = []
# Registered before edgellm's own handler, and so called after it.
atexit.register(lambda: [work() for work in at_exit])

import edgellm  # noqa: E402
from edgellm.loading import load_as  # noqa: E402

STATUS = 5
left: list[Iterator[edgellm.Piece]] = []
LONG: dict[str, Any] = {"max_new_tokens": 200, "eos_token_id": []}


class Ending:
    def __init__(self, package: Path, seconds: float) -> None:
        self.package = package
        self.seconds = seconds
        self.model = load_as(edgellm.Model, package, threads=2)

    def stream(self) -> None:
        for _ in self.model.stream("hello there", **LONG):
            pass

    def generate(self) -> None:
        self.model.generate(["hello there", "abc"], num_beams=3, **LONG)

    def load(self) -> None:
        edgellm.load(self.package, threads=2)

    def in_daemons(self, *works: Callable[[], None]) -> None:
        """Each again and again in a thread that Python does not wait for; returns when they have been at it a while."""
        begun = threading.Barrier(len(works) + 1)

        def repeat(work: Callable[[], None]) -> None:
            work()
            begun.wait()
            while True:
                work()

        for work in works:
            threading.Thread(target=repeat, args=(work,), daemon=True).start()
        begun.wait()
        time.sleep(self.seconds)


def daemon_streams(ending: Ending) -> None:
    ending.in_daemons(ending.stream)
    sys.exit(STATUS)


def daemons_of_all_kinds(ending: Ending) -> None:
    ending.in_daemons(ending.stream, ending.generate, ending.load)
    sys.exit(STATUS)


def error_beside_a_daemon(ending: Ending) -> None:
    ending.in_daemons(ending.generate)
    raise RuntimeError("a mistake of the program's own")


def half_consumed_stream(ending: Ending) -> None:
    """A global of the program holds it until the very end."""
    left.append(ending.model.stream("hello", **LONG))
    next(left[0])
    sys.exit(STATUS)


def in_the_progress_hook(ending: Ending) -> None:
    ending.model.generate("hello " * 60, progress=lambda done, total: sys.exit(STATUS), **LONG)


def interrupted(ending: Ending) -> None:
    threading.Timer(ending.seconds, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    while True:
        ending.generate()


def model_used_at_exit(ending: Ending) -> None:
    """By the main thread, when the daemon threads are held already."""
    ending.in_daemons(ending.generate)
    at_exit.append(ending.generate)
    sys.exit(STATUS)


HOW: dict[str, Callable[[Ending], None]] = {
    function.__name__: function
    for function in (
        daemon_streams, daemons_of_all_kinds, error_beside_a_daemon, half_consumed_stream, in_the_progress_hook,
        interrupted, model_used_at_exit,
    )
}  # fmt: skip


if __name__ == "__main__":
    how, package, seconds = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    HOW[how](Ending(Path(package), float(seconds)))
