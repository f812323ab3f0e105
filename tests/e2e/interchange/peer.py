"""Another runtime in an environment of its own, asked questions through its standard input: one line of JSON each."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Peer:
    """A process of `python` that runs the script `driver`, begun with the first question, and anew after a crash."""

    def __init__(self, python: str, driver: str) -> None:
        self.python = python
        self._driver = HERE / driver
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: str, **arguments: Any) -> Any:
        """What the driver's function `question` returns. Raises RuntimeError with the peer's own words."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps([question, arguments]), file=process.stdin, flush=True)
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._driver.name} ended with {process.wait()} while it was asked to {question}")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["answer"]

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [self.python, str(self._driver)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        return self._process
