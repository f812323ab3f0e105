"""How far a long command is: bars on a terminal, plain lines elsewhere; both on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping

import click

from edgellm.commands.signals import raise_if_received
from edgellm.types import Progress


@contextlib.contextmanager
def shown_progress(steps: Mapping[str, str]) -> Iterator[Progress]:
    """Shows progress, with `steps` as the names of the steps: bars where rich, which draws them, is installed, else
    lines."""
    with contextlib.ExitStack() as stack:
        bars = stack.enter_context(_bars(steps)) if sys.stderr.isatty() else None
        yield _ended_by_signals(bars or Lines(steps))


def _ended_by_signals(progress: Progress) -> Progress:
    """The same progress, which ends the command even where what a signal raised was swallowed."""

    def checked(step: str, done: int, total: int) -> None:
        raise_if_received()
        progress(step, done, total)

    return checked


@contextlib.contextmanager
def _bars(steps: Mapping[str, str]) -> Iterator[Progress | None]:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
    except ImportError:
        yield None
        return
    width = max(map(len, steps.values()))
    columns = (TextColumn(f"{{task.description:{width}}}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as display:

        def progress(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = display.add_task(steps.get(step, step), total=total)
            display.update(tasks[step], completed=done, total=total)

        yield progress


class Lines:
    """A line whenever another quarter of a step is done."""

    def __init__(self, steps: Mapping[str, str]) -> None:
        self._steps = steps
        self._shown: dict[str, int] = {}

    def __call__(self, step: str, done: int, total: int) -> None:
        quarter = 4 * done // total if total else 4
        if quarter > self._shown.get(step, 0):
            self._shown[step] = quarter
            click.echo(f"{self._steps.get(step, step)}: {25 * quarter}%", err=True)
