"""The program, but at one moment it says "stopped at MOMENT" on stderr and waits there: python stopped_export.py MOMENT
ARGUMENTS. Moments are the names of progress steps (the first report of each) and "rename"."""

from __future__ import annotations

import sys
import time
from typing import Any

from edgellm import cli
from edgellm.commands import progress
from edgellm_export import output


def stop_at(moment: str) -> None:
    def wait(*arguments: Any) -> None:
        print(f"stopped at {moment}", file=sys.stderr, flush=True)
        time.sleep(60)

    def report(lines: object, step: str, done: int, total: int) -> None:
        if step == moment:
            wait()

    progress.Lines.__call__ = report  # type: ignore[method-assign]
    if moment == "rename":
        output._put = wait


if __name__ == "__main__":
    stop_at(sys.argv.pop(1))
    cli.main()
