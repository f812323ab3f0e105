"""Typed access to GGUF metadata."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgellm.errors import CheckpointError
from edgellm_export.gguf.reader import GgufFile


class Keys:
    """The metadata below an architecture's prefix. All that is missing or mistyped becomes one CheckpointError."""

    def __init__(self, file: GgufFile, arch: str) -> None:
        self.file, self.arch = file, arch
        self._problems: list[str] = []

    def get(self, key: str) -> Any:
        return plain(self.file.metadata.get(f"{self.arch}.{key}"))

    def number(self, key: str, default: Any = None) -> Any:
        """A positive number; 0 counts as absent. Without a default it is required."""
        value = self.get(key)
        if type(value) in (int, float) and math.isfinite(value) and value > 0:
            return value
        if value not in (None, 0) or default is None:
            self.problem(
                f"{self.arch}.{key} is {'absent' if value is None else repr(value)}, expected a number above 0"
            )
            return 1 if default is None else default
        return default

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.number(key, default)
        if value != int(value):
            self.problem(f"{self.arch}.{key} is {value!r}, expected a whole number")
            return 1
        return int(value)

    def problem(self, text: str) -> None:
        self._problems.append(text)

    def check(self) -> None:
        if self._problems:
            raise CheckpointError(
                f"{self.file.path} lacks metadata that its architecture needs: {'; '.join(self._problems)}; "
                "convert it again with a current llama.cpp"
            )


def plain(value: Any) -> Any:
    """Numpy arrays as lists; float32 values as the decimal that was meant (1e-05, not 9.999999747378752e-06)."""
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    return float(str(np.float32(value))) if isinstance(value, float) else value
