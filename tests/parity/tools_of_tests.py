"""Python functions that stand in cases by their names: JSON has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal


def add(a: int, b: float = 0.0) -> float:
    """Adds two numbers.

    Args:
        a: The first one
        b: The second one,
            which may be left out
    """
    return a + b


def weather(place: str, unit: Literal["C", "F"], days: list[int] | None = None) -> str:
    """The weather somewhere.

    Args:
        place: Where
        unit: Of temperature (choices: ["C", "F"])
        days: Which, counted from today

    Returns:
        A sentence
    """
    return ""


def resolved(tools: Sequence[Any] | None) -> list[Any] | None:
    known = {"add": add, "weather": weather}
    return None if tools is None else [known[tool] if isinstance(tool, str) else tool for tool in tools]
