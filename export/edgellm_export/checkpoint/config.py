"""config.json read with types: guessing about other people's files ends here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard, TypeVar

from edgellm.errors import CheckpointError, UnsupportedModelError, nearest

MAX_POSITIONS = 1 << 24  # tokens; rotary tables beyond would fill the memory before anything else is noticed
MAX_HEAD_DIM = MAX_HEADS = 1 << 16  # of both there are lists before tensors are looked at
MAX_LAYERS = 1 << 12  # the deepest models have some hundred
TINY, HUGE = 1e-30, 1e30  # beyond which float32 and the formulas of rope scalings lose themselves

FULL, SLIDING = "full_attention", "sliding_attention"

T = TypeVar("T")


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number, neither infinite, which Python's reader of JSON takes, nor beyond reason."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -HUGE <= value <= HUGE


def is_positive(value: object) -> TypeGuard[float]:
    return is_number(value) and value >= TINY


def short(value: object) -> str:
    """A value of somebody's file as messages show it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True)
class ConfigReader:
    """Typed access to one config.json. Problems are collected and raised together by `finish`. `tensors`: how many the
    checkpoint has."""

    data: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)
    tensors: int = MAX_LAYERS

    def integer(self, key: str, default: int | None = None, *, minimum: int = 1, maximum: int = (1 << 31) - 1) -> int:
        """A whole number within limits; required unless there is a default. null counts as absent."""
        value = self.data.get(key)
        if value is None and default is not None and default <= maximum:
            return default
        if type(value) is int and minimum <= value <= maximum:
            return value
        self._problem(key, value, f"a whole number from {minimum} to {maximum}")
        return minimum

    def layers(self, key: str, default: int | None = None) -> int:
        """A number of layers, each of which has tensors: lists of them may be made."""
        value = self.integer(key, default)
        self.require(value <= self.tensors, f"{key} is {value}, and the checkpoint has only {self.tensors} tensors")
        return min(value, self.tensors, MAX_LAYERS)

    def optional_integer(self, key: str) -> int | None:
        return None if self.data.get(key) is None else self.integer(key)

    def number(self, key: str, default: float | None = None, *, positive: bool = True) -> float:
        value = self.data.get(key)
        if value is None and default is not None:
            return default
        if value is not None and (is_positive(value) if positive else is_number(value)):
            return float(value)
        self._problem(key, value, "a positive number" if positive else "a number")
        return 1.0

    def optional_number(self, key: str) -> float | None:
        return None if self.data.get(key) is None else self.number(key)

    def flag(self, key: str, default: bool = False) -> bool:
        return self._of_type(key, default, bool, "true or false")

    def text(self, key: str) -> str:
        return self._of_type(key, "", str, "a string")

    def choice(self, key: str, known: Sequence[str]) -> str:
        """One of `known`; another name is a feature that edgellm does not build, and null is no name."""
        value = self.text(key)
        self.require(self.data.get(key) is not None, f"{key} is null, expected a name such as {known[0]!r}")
        if isinstance(self.data.get(key), str) and value not in known:
            raise UnsupportedModelError(
                f"config.json: {key} is {value!r}, which edgellm does not build; {nearest(value, known)}"
            )
        return value

    def must_be(self, key: str, expected: object, *, null: bool = True) -> None:
        """Refuse a checkpoint whose `key` switches on something edgellm does not build. `null`: null does not."""
        value = self.data.get(key, expected)
        if value != expected and not (null and value is None):
            raise UnsupportedModelError(
                f"config.json: {key} is {value!r}; edgellm builds this family only with {expected!r}"
            )

    def windows(self, window: int | None, default: Sequence[str]) -> Sequence[int | None]:
        """What each layer sees: so many tokens, or all (None). `default`: each layer's kind where config.json does not
        say them in layer_types, "full_attention" or "sliding_attention"."""
        kinds = self._layer_types(len(default)) if self.data.get("layer_types") is not None else default
        self.require(
            window is not None or SLIDING not in kinds, f"layer_types has {SLIDING}, and there is no sliding_window"
        )
        return [window if kind == SLIDING else None for kind in kinds]

    def all_layers_see(self, window: int | None) -> None:
        """Refuse other windows than one for all layers, None for none: transformers drops from its cache what is behind
        them, whether or not a family's attention knows of them."""
        self.must_be("attention_chunk_size", None)
        kinds, kind = self.data.get("layer_types"), FULL if window is None else SLIDING
        if kinds is not None and (not isinstance(kinds, list) or any(each != kind for each in kinds)):
            raise UnsupportedModelError(
                f"config.json: layer_types is {kinds!r}; edgellm builds this family only with {kind!r} for each layer"
            )

    def no_windows(self) -> None:
        self.must_be("sliding_window", None)
        self.all_layers_see(None)

    def _layer_types(self, count: int) -> Sequence[str]:
        value, known = self.data.get("layer_types"), {FULL, SLIDING}
        if isinstance(value, list) and len(value) == count and all(isinstance(v, str) for v in value):
            if unknown := sorted(set(value) - known):
                raise UnsupportedModelError(
                    f"config.json: layer_types has {unknown[0]!r}, which edgellm does not build; "
                    f"{nearest(unknown[0], known)}"
                )
            return value
        self._problem("layer_types", value, f"a list of {count} names")
        return []

    def require(self, condition: bool, message: str) -> None:
        if not condition:
            self.problems.append(message)

    def finish(self) -> None:
        """Raise one CheckpointError that names every problem found so far."""
        if self.problems:
            raise CheckpointError("config.json: " + "; ".join(self.problems) + "; is it the config of this checkpoint?")

    def _of_type(self, key: str, default: T, kind: type[T], expected: str) -> T:
        value = self.data.get(key)
        if value is None or isinstance(value, kind):
            return default if value is None else value
        self._problem(key, value, expected)
        return default

    def _problem(self, key: str, value: object, expected: str) -> None:
        found = f"{key} is {value!r}" if key in self.data else f"{key} is missing"
        self.problems.append(f"{found}, expected {expected}")
