"""The command line: one group of commands, and what becomes of their errors.

Results go to stdout; progress, warnings and errors to stderr. Exit codes are those of `edgellm.errors`; 2 also for
wrong usage, 1 for anything unexpected, 130 after Ctrl-C, 143 after SIGTERM, at which `serve` ends with 0.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from typing import Any, NoReturn

import click

import edgellm
from edgellm.commands import signals
from edgellm.commands.batch import batch
from edgellm.commands.bench import bench
from edgellm.commands.chat import chat
from edgellm.commands.diff import diff
from edgellm.commands.doctor import doctor
from edgellm.commands.eval import evaluate
from edgellm.commands.export import export
from edgellm.commands.generate import generate
from edgellm.commands.inspect import inspect
from edgellm.commands.options import one_line
from edgellm.commands.run import run
from edgellm.commands.serve import serve
from edgellm.commands.verify import verify
from edgellm.errors import EdgellmError, OutOfMemoryError, OutOfSpaceError

INTERRUPTED = 130  # 128 + SIGINT
UNEXPECTED = {"diff": 2}  # the status after anything unexpected, else 1: that says that packages differ


class Failure(click.ClickException):
    """Ends a command with one line on stderr and this exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Commands(click.Group):
    """A group whose errors are one line each, whatever raised them."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(error.exit_code)
        except click.ClickException as error:
            click.echo(f"error: {one_line(_describe(error))}", err=True)
            sys.exit(error.status if isinstance(error, Failure) else error.exit_code)
        except click.Abort:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)
        except Exception as error:
            failure = _exhausted(error)
            if failure is None:
                raise
            _forget_output()
            click.echo(f"error: {one_line(failure.message)}", err=True)
            sys.exit(failure.status)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            signals.raise_if_received()
            if ctx.params["debug"]:
                raise
            if isinstance(error, EdgellmError):
                raise Failure(str(error), error.exit_code) from error
            if _exhausted(error):
                raise
            raise Failure(
                f"unexpected {type(error).__name__}: {error}; please report it, "
                "with what the same command prints under `edgellm --debug`",
                status=UNEXPECTED.get(ctx.invoked_subcommand or "", 1),
            ) from error


@click.group("edgellm", cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(edgellm.__version__, prog_name="edgellm", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, envvar="EDGELLM_DEBUG", help="Show tracebacks. Also: EDGELLM_DEBUG=1.")
def cli(debug: bool) -> None:
    """Export Transformer checkpoints to quantized ONNX packages, and run them."""


for command in (export, generate, chat, run, serve, batch, evaluate, bench, inspect, doctor, diff, verify):
    cli.add_command(command)


def main() -> None:
    """The `edgellm` program."""
    signals.install()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # text a terminal cannot show
    cli()


def _exhausted(error: Exception) -> Failure | None:
    """The failure that a lack of room, memory or handles is; None for other errors."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, OSError) and number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        place = error.filename or "the output"
        return Failure(f"cannot write {place}: {error.strerror}; make room and run it again", OutOfSpaceError.exit_code)
    if number in (errno.EMFILE, errno.ENFILE):
        return Failure("too many open files; raise the limit (ulimit -n), or close other programs' files", 1)
    if isinstance(error, MemoryError):
        return Failure(f"no memory ({error or 'no size given'}); ask for less at a time", OutOfMemoryError.exit_code)
    return None


def _forget_output() -> None:
    """What standard output still holds cannot be written either: Python would say so once more when it ends."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.close()


def _describe(error: click.ClickException) -> str:
    message = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message.rstrip('.')}; see `{error.ctx.command_path} --help`"
    return message
