"""What a value of a generation option must look like: small checks that return the value to keep or raise Unfit."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Check = Callable[[Any], Any]

MIN_FACTOR, MAX_FACTOR = 1e-30, 1e30
MAX_FLOAT = sys.float_info.max


class Unfit(Exception):
    """The value does not fit; the text says what was expected."""


def integer(minimum: int) -> Check:
    def check(value: Any) -> int:
        if not _is_integer(value) or value < minimum:
            raise Unfit(f"a whole number from {minimum}")
        return int(value)

    return check


def number(low: float = -math.inf, high: float = math.inf, *, above: bool = False, below: bool = False) -> Check:
    """Check for finite numbers from `low` to `high`; `above` and `below` exclude the ends."""

    def check(value: Any) -> float:
        if not _is_number(value) or not low <= value <= high or (above and value == low) or (below and value == high):
            raise Unfit(_range_text(low, high, above, below))
        return float(value)

    return check


def factor(low: float = MIN_FACTOR) -> Check:
    """Check for a number that float32 values are multiplied with or divided by: beyond these limits they vanish or
    overflow."""

    def check(value: Any) -> float:
        if not _is_number(value) or not (value == low or MIN_FACTOR <= value <= MAX_FACTOR):
            raise Unfit(f"{'0 or ' * (low == 0)}a number from {MIN_FACTOR:g}, at most {MAX_FACTOR:g}")
        return float(value)

    return check


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit("True or False")
    return value


def early_stopping(value: Any) -> bool | str:
    if not (isinstance(value, bool) or value == "never"):
        raise Unfit('True, False or "never"')
    return value  # type: ignore[no-any-return]


def one_of(*names: str) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            raise Unfit(" or ".join(f'"{name}"' for name in names))
        return value

    return check


def token(value: Any) -> int:
    if not _is_integer(value) or value < 0:
        raise Unfit("a token id")
    return int(value)


def tokens(value: Any) -> tuple[int, ...]:
    """Check for one token id or several."""
    values = list(value) if _is_sequence(value) else [value]
    if not all(_is_integer(v) and v >= 0 for v in values):
        raise Unfit("a token id or a list of token ids")
    return tuple(int(v) for v in values)


def token_lists(value: Any) -> tuple[tuple[int, ...], ...]:
    expected = "a list of non-empty lists of token ids"
    if not _is_sequence(value) or not all(_is_sequence(word) and len(word) > 0 for word in value):
        raise Unfit(expected)
    try:
        return tuple(tokens(word) for word in value)
    except Unfit:
        raise Unfit(expected) from None


def start_and_factor(value: Any) -> tuple[int, float]:
    """Check for a number of tokens and what to multiply with for each one beyond."""
    expected = "a number of tokens from 0 and a factor from 1"
    if not _is_sequence(value) or len(value) != 2:
        raise Unfit(expected)
    try:
        return integer(0)(value[0]), number(1, MAX_FACTOR)(value[1])
    except Unfit:
        raise Unfit(expected) from None


def biases(most: float) -> Check:
    """Check for a mapping of token ids, which may be texts as JSON has them, to numbers from -most to most; sorted."""
    expected = f"a mapping of token ids to numbers from {-most:g} to {most:g}"

    def check(value: Any) -> tuple[tuple[int, float], ...]:
        if not isinstance(value, Mapping):
            raise Unfit(expected)
        ids = [int(i) if isinstance(i, str) and re.fullmatch(r"\d{1,10}", i, re.ASCII) else i for i in value]
        try:
            numbers = map(number(-most, most), value.values())
            return tuple(sorted(zip(map(token, ids), numbers, strict=True)))
        except Unfit:
            raise Unfit(expected) from None

    return check


def strings(value: Any) -> tuple[str, ...]:
    """Check for one string or several, none of them empty."""
    values = [value] if isinstance(value, str) else value
    if not _is_sequence(values) or not all(isinstance(v, str) and v for v in values):
        raise Unfit("a non-empty string or a list of them")
    return tuple(values)


def text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Unfit("a non-empty text")
    return value


def json_schema(value: Any) -> str:
    """Check for a JSON Schema, as JSON text in the end. The order of its keys stays: properties come in that order."""
    expected = "a JSON Schema: a dict, the text of a JSON object, a pydantic model, or True for any JSON"
    try:
        schema = _schema_of(value)
        if schema is True:
            schema = {}
        if not isinstance(schema, Mapping):
            raise Unfit(expected)
        return json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise Unfit(f"{expected}; {error}") from error


def _schema_of(value: Any) -> Any:
    if isinstance(value, str):
        return json.loads(value)
    if callable(schema := getattr(value, "model_json_schema", None)):  # pydantic is not needed to know its models
        return schema()
    return value


def _is_integer(value: Any) -> bool:
    """Whether it is a whole number of Python or numpy, but not True or False."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """Whether it is a number that is finite, also as a float."""
    if _is_integer(value):
        return -MAX_FLOAT <= int(value) <= MAX_FLOAT
    return isinstance(value, float | np.floating) and math.isfinite(value)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _range_text(low: float, high: float, above: bool, below: bool) -> str:
    if low == -math.inf:
        return "a finite number"
    text = f"a number above {low:g}" if above else f"a number from {low:g}"
    if high == math.inf:
        return text
    return f"{text}, below {high:g}" if below else f"{text}, at most {high:g}"
