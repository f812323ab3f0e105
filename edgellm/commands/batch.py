"""edgellm batch: many lines over one package."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgellm.commands.options import SizeType, chosen, generation_options, json_option, package_argument, with_options
from edgellm.errors import OptionError

if TYPE_CHECKING:
    from edgellm.bulk import Status, Summary

LINES_FAILED = 9  # the exit status where some lines have no answer
EVERY_S = 10.0  # between two lines of progress, where it is no bar

file_type = click.Path(path_type=Path)

OPTIONS = [
    click.option("--template", help="The prompt or text, with {names} of columns in it."),
    click.option("--column", help="The column that is the prompt or text.  [default: prompt; for encoders text]"),
    click.option("--chat", is_flag=True, help="The prompt is what a user says: ask through the chat template."),
    click.option("--system", help="A system message before it; as --chat."),
    click.option("--prefix", default="", show_default=False, help="Put this before the names of the answers' columns."),
    click.option("--prompt-name", help="Embeddings: the checkpoint's prompt of this name goes before each text."),
    click.option("--truncation", is_flag=True, help="Encoders: cut texts that are too long for the model."),
    click.option("--restart", is_flag=True, help="Forget an earlier run, and replace its output."),
    click.option("--retry-errors", is_flag=True, help="Try lines again that failed in an earlier run."),
    click.option("--retries", type=int, help="How often a line is tried again at once, where memory was short or the "
                 "model's run failed.  [default: 2]"),
    click.option("--max-rows", type=int, help="Sequences decoded together.  [default: 32]"),
    click.option("--max-cache", "max_cache_bytes", type=SizeType(), help="Memory for keys and values, such as 2GiB.  "
                 "[default: a quarter of what is available]"),
    click.option("--ray", "address", metavar="ADDRESS", help="Have a Ray cluster answer: HOST:PORT of its head, auto "
                 "for the one this machine is in, local for one of this machine alone."),
    click.option("--ray-workers", "workers", type=int, help="Models that it loads.  [default: as many as it has CPUs "
                 "for]"),
    click.option("--ray-shared", "shared", is_flag=True, help="Each node can read PKG there; otherwise it is sent."),
]  # fmt: skip


@click.command()
@package_argument
@click.argument("source", metavar="INPUT", type=file_type)
@click.argument("output", type=file_type)
@with_options(OPTIONS)
@generation_options
@json_option
@click.pass_context
def batch(ctx: click.Context, /, package: Path, source: Path, output: Path, as_json: bool, **arguments: Any) -> None:
    """Answer each line of INPUT with the package PKG, and write OUTPUT, in the same order.

    INPUT is JSON lines (those of OpenAI's batches, or objects with columns), CSV or Parquet, by its name; OUTPUT is of
    the same kind, or JSON lines. Packages that generate give answers, sentence encoders vectors, text classifiers
    labels.

    Every answer is on the disk at once, in OUTPUT.journal. The same command, run again after it was stopped or killed,
    goes on where it was. Ends with exit code 9 where some lines failed; the output says why.
    """
    run_batch = _runner(arguments)
    with _shown() as progress, contextlib.redirect_stdout(sys.stderr):  # Ray prints news of its nodes
        summary = run_batch(package, source, output, progress=progress, **chosen(arguments))
    click.echo(json.dumps({**asdict(summary), "output": str(output)}) if as_json else line_of(summary))
    if summary.failed:
        ctx.exit(LINES_FAILED)


def _runner(arguments: dict[str, Any]) -> Callable[..., Summary]:
    """What does it; options that are not for that are taken out. Raises OptionError."""
    if arguments["address"] is not None:
        from edgellm.ray import run_batch as on_ray

        return on_ray
    from edgellm.bulk import run_batch  # other commands start sooner without it

    for name in ("address", "workers", "shared"):
        if arguments.pop(name):
            raise OptionError(f"--ray-{name} is of workers on Ray; give --ray ADDRESS, too")
    return run_batch


def line_of(summary: Summary) -> str:
    parts = [f"{summary.lines} lines: {summary.answered} answered, {summary.failed} failed, {summary.reused} reused"]
    if summary.prompt_tokens:
        parts.append(f"{summary.prompt_tokens} tokens read, {summary.new_tokens} new in {duration(summary.seconds)}")
    return f"{'; '.join(parts)}; {summary.output}"


@contextlib.contextmanager
def _shown() -> Iterator[Callable[[Status], None]]:
    """Shows how far a batch is: a bar on a terminal where rich, which draws it, is installed; else a line now and then.
    Where it is stopped, a line says how to go on."""
    last: Status | None = None
    with contextlib.ExitStack() as stack:
        show = (stack.enter_context(_bar()) if sys.stderr.isatty() else None) or Lines()

        def progress(status: Status) -> None:
            nonlocal last
            last = status
            show(status)

        try:
            yield progress
        except (KeyboardInterrupt, SystemExit):
            stack.close()
            if last is not None:
                kept = f"{last.done} of {last.total} lines are done and kept"
                click.echo(f"stopped: {kept}; run the same command again to go on", err=True)
            raise


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[Status], None] | None]:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        yield None
        return
    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task("", total=None)

        def show(status: Status) -> None:
            display.update(task, description=text_of(status), completed=status.done, total=status.total)

        yield show


class Lines:
    """A line every ten seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, status: Status) -> None:
        now = time.monotonic()
        if now - self._last >= EVERY_S:
            self._last = now
            click.echo(text_of(status), err=True)


def text_of(status: Status) -> str:
    """ "120 of 400 lines, 3 failed, 250 tokens/s, 1 min 20 s left"."""
    parts = [f"{status.done} of {status.total} lines"]
    if status.failed:
        parts.append(f"{status.failed} failed")
    tokens = status.new_tokens or status.prompt_tokens
    if tokens and status.elapsed_s:
        parts.append(f"{tokens / status.elapsed_s:.0f} tokens/s")
    if status.remaining_s is not None and status.done < status.total:
        parts.append(f"{duration(status.remaining_s)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """The two largest units: "2 h 5 min", "1 min 20 s", "3.4 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if not minutes:
        return f"{whole} s"
    return f"{minutes} min {whole % 60} s" if not hours else f"{hours} h {minutes % 60} min"
