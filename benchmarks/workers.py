"""A system loaded in a process of its own, asked over pipes in the protocol of peers/protocol.py."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import python_of
from systems import System

PEERS = Path(__file__).resolve().parent / "peers"


@dataclass(frozen=True)
class Start:
    """How a worker is started, again and again."""

    name: str
    system: System
    model: Path
    threads: int
    context: int

    def worker(self) -> Worker:
        """The loaded system. Raises Failed where it ends instead."""
        settings = {"model": str(self.model), "threads": self.threads, "context": self.context}
        command = [python_of(self.system.environment), str(PEERS / self.system.worker), json.dumps(settings)]
        environment = {
            **os.environ,
            "ORT_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1",
            "CI": "true",
            "OMP_NUM_THREADS": str(self.threads),
        }
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        start = time.perf_counter()
        process = subprocess.Popen(command, text=True, env=environment, **pipes)  # type: ignore[call-overload]
        try:
            loaded = json.loads(_line(process))
        except Failed:
            _close(process)
            raise
        return Worker(self.name, process, {**loaded, "start_s": time.perf_counter() - start})


class Failed(Exception):
    """The system could not do what it was asked; its own words."""


@dataclass(frozen=True)
class Worker:
    name: str
    process: subprocess.Popen[str]
    loaded: dict[str, float]
    """load_s; start_s, from the process's start to the loaded model; bare_mb, peak RSS in MiB before the model."""

    def time(self, prompt_length: int, new_tokens: int) -> dict[str, float]:
        return self._ask({"prompt_length": prompt_length, "new_tokens": new_tokens})

    def time_several(self, prompt_length: int, new_tokens: int, *, rows: int, beams: int) -> dict[str, float]:
        return self._ask({"prompt_length": prompt_length, "new_tokens": new_tokens, "rows": rows, "beams": beams})

    def serve(self, clients: int, requests: Sequence[Sequence[int]], first: int) -> dict[str, Any]:
        """The load benchmark's: see peers/load.py."""
        return self._ask({"clients": clients, "requests": [list(one) for one in requests], "first": first})

    def write_logits(self, ids: Sequence[int], out: Path) -> None:
        self._ask({"token_ids": list(ids), "out": str(out)})

    def close(self) -> None:
        _close(self.process)

    def _ask(self, request: dict[str, Any]) -> dict[str, float]:
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise Failed(f"it ended with status {self.process.wait()}") from None
        answer: dict[str, Any] = json.loads(_line(self.process))
        if "error" in answer:
            raise Failed(answer["error"])
        return answer


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise Failed(f"it ended with status {process.wait()}")
    return line


def _close(process: subprocess.Popen[str]) -> None:
    """End the worker by ending its input."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.wait(60)
    process.stdout.close()
