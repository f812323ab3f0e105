"""Typed access to adapter_config.json."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgellm.errors import CheckpointError
from edgellm_export.checkpoint.config import is_number, short

EMBEDDING = ""  # whose rows `trainable_token_indices` are where it is a list
MAX_RANK = 1 << 16


@dataclass(frozen=True)
class AdapterReader:
    """The values of one file by key; null counts as absent. Problems are collected and raised together by `finish`.
    `place`: of the file."""

    data: Mapping[str, Any]
    place: str
    problems: list[str] = field(default_factory=list)

    def rank(self, key: str, default: int) -> int:
        value = self._value(key, default)
        return int(value) if self._require(_is_rank(value), key, value, "a whole number from 1") else default

    def number(self, key: str, default: float) -> float:
        value = self._value(key, default)
        return float(value) if self._require(is_number(value), key, value, "a number") else default

    def flag(self, key: str) -> bool:
        value = self._value(key, False)
        return self._require(isinstance(value, bool), key, value, "true or false") and bool(value)

    def text(self, key: str) -> str | None:
        value = self.data.get(key)
        return value if self._require(value is None or isinstance(value, str), key, value, "text") else None

    def rank_patterns(self, key: str, form: str) -> Mapping[str, int]:
        """Ranks by regular expressions for modules' names, which are run in a form, with {} in their place."""
        return self._by_pattern(key, form, _is_rank, "whole numbers from 1")

    def number_patterns(self, key: str, form: str) -> Mapping[str, float]:
        return self._by_pattern(key, form, is_number, "numbers")

    def modules(self, key: str) -> str | Sequence[str]:
        """A regular expression, or names."""
        value = self.data.get(key)
        if isinstance(value, str):
            return value if self._is_pattern(key, value) else ()
        return self.names(key)

    def names(self, key: str) -> Sequence[str]:
        """Names; a single one may stand for itself."""
        value = self._value(key, [])
        names = [value] if isinstance(value, str) else value
        right = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return tuple(names) if self._require(right, key, value, "names of modules") else ()

    def patterns(self, key: str, form: str) -> Sequence[str]:
        return tuple(name for name in self.names(key) if self._is_pattern(key, name, form))

    def indices(self, key: str) -> Sequence[int]:
        return self._indices(key, self._value(key, []))

    def token_indices(self, key: str) -> Mapping[str, Sequence[int]]:
        value = self._value(key, {})
        by_module = value if isinstance(value, Mapping) else {EMBEDDING: value}
        return {name: self._indices(key, indices) for name, indices in by_module.items()}

    def finish(self) -> None:
        """Raise one CheckpointError that names every problem found so far."""
        if self.problems:
            raise CheckpointError(f"{self.place}: " + "; ".join(self.problems) + "; is it the file that PEFT wrote?")

    def _value(self, key: str, default: Any) -> Any:
        value = self.data.get(key)
        return default if value is None else value

    def _require(self, condition: bool, key: str, value: object, expected: str) -> bool:
        if not condition:
            self.problems.append(f"{key} is {short(value)}, expected {expected}")
        return condition

    def _indices(self, key: str, value: Any) -> Sequence[int]:
        indices = value if isinstance(value, list) else [value]
        right = all(type(index) is int and index >= 0 for index in indices)
        return tuple(indices) if self._require(right, key, value, "whole numbers from 0") else ()

    def _by_pattern(self, key: str, form: str, is_right: Callable[[object], bool], expected: str) -> Mapping[str, Any]:
        value = self._value(key, {})
        right = isinstance(value, Mapping) and all(map(is_right, value.values()))
        if not self._require(right, key, value, f"{expected} by modules' names"):
            return {}
        return {pattern: number for pattern, number in value.items() if self._is_pattern(key, pattern, form)}

    def _is_pattern(self, key: str, pattern: str, form: str = "{}") -> bool:
        """Both by itself, so that nothing in it reaches out of its place in the form, and in the form."""
        try:
            re.compile(pattern)
            re.compile(form.format(pattern))
        except (re.error, OverflowError, RecursionError) as error:
            self.problems.append(f"{key} has {short(pattern)}, which is not a regular expression ({error})")
            return False
        return True


def _is_rank(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_RANK
