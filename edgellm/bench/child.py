"""Starts the measuring process and hears it out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from edgellm import errors
from edgellm.bench.jobs import Job, JobResult


def run_in_child(job: Job, before_run: Callable[[int], None] = lambda number: None) -> JobResult:
    """Do a job in a process of its own. Raises the error that the job raised there, or ProviderError where the process
    ended without an answer."""
    with tempfile.TemporaryFile() as complaints:
        child = _start(complaints)
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            _send(child.stdin, job)
            answer = None
            for line in child.stdout:
                answer = _hear(line, before_run) or answer
            status = child.wait()
        finally:
            _end(child)
        if answer is None:
            complaints.seek(0)
            _explain(status, complaints.read().decode(errors="replace"))
        return answer


def _start(complaints: Any) -> subprocess.Popen[str]:
    """Start the process, in a group of its own, so that Ctrl-C comes here and the child is ended in order."""
    home = str(Path(errors.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    own_group: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "edgellm.bench.worker"],  # -P: imports nothing from the current directory
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        **own_group,
    )


def _send(stdin: Any, job: Job) -> None:
    try:
        with stdin:
            json.dump(job.to_dict(), stdin)
    except BrokenPipeError:
        pass  # it has ended already; its exit status says more


def _hear(line: str, before_run: Callable[[int], None]) -> JobResult | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None  # some library's own output
    match message:
        case {"run": number}:
            before_run(number)
        case {"error": name, "message": text}:
            raise getattr(errors, name)(text)
        case {"answer": answer}:
            return JobResult.from_dict(answer)
    return None


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None and not stream.closed:
            stream.close()


def _explain(status: int, complaints: str) -> NoReturn:
    last = (complaints.strip() or "it said nothing").splitlines()[-1]
    if status < 0:
        last += "; the system may have been short of memory"
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    raise errors.ProviderError(f"the measuring process {how}: {last}")
