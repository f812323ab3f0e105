"""The process in which transformers reads checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from edgellm.errors import ExportError, MissingDependencyError
from edgellm_export.witness.questions import Question

PROGRAM = Path(__file__).with_name("reading.py")


class Reader:
    """A process of `python` that answers questions, one after the other. It begins with the first."""

    def __init__(self, python: str | None = None) -> None:
        self._python = python or sys.executable
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
        if source.endswith(".gguf"):
            raise ExportError(
                f"{source} is a GGUF file: what it means is llama.cpp's to say, and transformers reads its tokenizer "
                "in another way; compare with the Hugging Face checkpoint that it was made of"
            )
        needed = ("transformers", "torch", *(("peft",) if adapters else ()))
        try:
            probed = subprocess.run([self._python, "-c", f"import {', '.join(needed)}"], capture_output=True, text=True)
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

    def ask(self, question: Question) -> Mapping[str, Any]:
        """Raises ExportError where the process ends, or cannot answer."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: there is no line
            print(json.dumps(question.to_dict()), file=process.stdin, flush=True)
        line = process.stdout.readline()
        if not line:
            self._process = None
            raise ExportError(f"transformers ended with {process.wait()} while it read {question.checkpoint}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise ExportError(f"transformers could not be asked about {question.checkpoint}: {found['error']}")
        return found

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
