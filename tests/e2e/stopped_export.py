"""The program, but at one moment it says "stopped at MOMENT" on stderr and waits there: python stopped_export.py MOMENT
ARGUMENTS. Moments are the names of progress steps (the first report of each), and those of CALLS, which stop before the
call."""

from __future__ import annotations

import sys
import time
from typing import Any

from edgellm import cli
from edgellm.commands import progress
from edgellm_export import pipeline
from edgellm_export.package import output

CALLS = {
    "open": (pipeline, "open_checkpoint"),
    "side files": (pipeline, "write_side_files"),
    "seal": (pipeline, "seal"),
    "sync": (output, "_sync"),
    "rename": (output, "_put"),
    "removal": (output, "_remove"),  # of the old package, when the new one is in its place
}


def stop_at(moment: str) -> None:
    def wait(*arguments: Any) -> None:
        print(f"stopped at {moment}", file=sys.stderr, flush=True)
        time.sleep(60)

    def report(lines: object, step: str, done: int, total: int) -> None:
        if step == moment:
            wait()

    progress.Lines.__call__ = report  # type: ignore[method-assign]
    if moment in CALLS:
        module, name = CALLS[moment]
        call = getattr(module, name)

        def wait_and_call(*arguments: Any, **options: Any) -> Any:
            setattr(module, name, call)
            wait()
            return call(*arguments, **options)

        setattr(module, name, wait_and_call)


if __name__ == "__main__":
    stop_at(sys.argv.pop(1))
    cli.main()
