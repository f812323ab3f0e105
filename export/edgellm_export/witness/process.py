"""The process in which transformers reads checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event, Timer
from types import TracebackType
from typing import Any

from edgellm.errors import ExportError, MissingDependencyError
from edgellm_export.sources.directory import file_names
from edgellm_export.sources.gguf_choice import SUFFIX, is_only_gguf, split_tag
from edgellm_export.witness.questions import Question

PROGRAM = Path(__file__).with_name("reading.py")
OLDEST = (4, 57)  # transformers
LIMIT = 7200  # seconds for one answer: large models generate slowly, and templates of chats may never end


class Reader:
    """A process of `python` that answers questions, one after the other, each within `limit` seconds. It begins with
    the first."""

    def __init__(self, python: str | None = None, limit: float = LIMIT) -> None:
        self._python = python or sys.executable
        self._limit = limit
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def check(self, source: str, *, adapters: bool = False) -> None:
        """Raises MissingDependencyError where there is no transformers to ask about `source`, and ExportError where it
        is nobody to ask. `adapters`: whether PEFT is needed, too."""
        if _is_gguf(source):
            raise ExportError(
                f"{source} is a GGUF file: what it means is llama.cpp's to say, and transformers reads its tokenizer "
                "in another way; compare with the Hugging Face checkpoint that it was made of"
            )
        needed = ("transformers", "torch", *(("peft",) if adapters else ()))
        program = f"import {', '.join(needed)}; print(); print(transformers.__version__)"
        try:
            probed = subprocess.run([self._python, "-c", program], capture_output=True, text=True)
        except OSError as error:
            raise MissingDependencyError(
                f"{self._python} cannot be run ({error}); name a Python interpreter that has transformers"
            ) from error
        if probed.returncode:
            reason = (probed.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise MissingDependencyError(
                f"comparing with transformers needs {' and '.join(needed)} in {self._python} ({reason}); "
                f"run `pip install {' '.join(needed)}`, or name an interpreter that has them with --python"
            )
        self._check_version((probed.stdout.splitlines() or [""])[-1])

    def _check_version(self, version: str) -> None:
        numbers = [int(part) for part in version.split(".")[:2] if part.isdecimal()]
        if tuple(numbers) < OLDEST:
            raise MissingDependencyError(
                f"{self._python} has transformers {version or 'of no version'}, expected {'.'.join(map(str, OLDEST))} "
                "or newer; run `pip install -U transformers`, or name another interpreter with --python"
            )

    def ask(self, question: Question) -> Mapping[str, Any]:
        """Raises ExportError where the process ends, takes too long, or cannot answer."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        with self._ended_by_failure(process) as late:
            with contextlib.suppress(BrokenPipeError):  # it has ended: there is no line
                print(json.dumps(question.to_dict()), file=process.stdin, flush=True)
            line = process.stdout.readline()
            if late.is_set():
                raise ExportError(f"transformers had not read {question.checkpoint} after {self._limit:g} seconds")
            if not line:
                raise ExportError(f"transformers ended with {process.wait()} while it read {question.checkpoint}")
            found = _answer(line, question.checkpoint)
        if "error" in found:
            raise ExportError(f"transformers could not be asked about {question.checkpoint}: {found['error']}")
        return found

    @contextlib.contextmanager
    def _ended_by_failure(self, process: subprocess.Popen[str]) -> Iterator[Event]:
        """A process that has not answered, for whatever reason or in time, cannot be asked again: it is ended. Gives
        whether it is late."""
        late = Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = Timer(self._limit, end)
        timer.start()
        try:
            yield late
        except BaseException:
            self._process = None
            process.kill()
            process.communicate()
            raise
        finally:
            timer.cancel()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [self._python, str(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ
                | {"HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONUTF8": "1"},
            )
        return self._process


def _answer(line: str, checkpoint: str) -> dict[str, Any]:
    found = None
    with contextlib.suppress(ValueError):
        found = json.loads(line)
    if not isinstance(found, dict):
        raise ExportError(
            f"the process that reads {checkpoint} wrote {line.strip()[:80]!r}, expected a line of JSON; does its "
            "Python print something when it starts?"
        )
    return found


def _is_gguf(source: str) -> bool:
    """Whether a source is a GGUF file, one behind a colon, or a directory of nothing else."""
    path = Path(source).expanduser()
    if path.is_dir():
        return is_only_gguf(file_names(path))
    return source.endswith(SUFFIX) or split_tag(source)[1] is not None
