"""Lists of numbers as llama-bench takes them: `128,512`, `1-4`, `64-256+64`, `64-1024*2`."""

from __future__ import annotations

import re

from edgellm.errors import OptionError

RANGE = re.compile(r"(\d+)(?:-(\d+)(?:([+*])(\d+))?)?", re.ASCII)
MAX_VALUES = 1000


def parse_numbers(text: str, name: str, *, at_least: int = 1) -> tuple[int, ...]:
    """The numbers that `text` lists, in its order, each once. Raises OptionError, which names the option `name`.

    `a-b` counts up by one, `a-b+s` by s, `a-b*f` multiplies by f as long as b is not passed.
    """
    numbers = [number for part in text.split(",") for number in _expand(part.strip(), text, name)]
    below = next((number for number in numbers if number < at_least), None)
    if below is not None:
        raise OptionError(f"{name} is {text!r}: {below} is below {at_least}")
    return tuple(dict.fromkeys(numbers))


def _expand(part: str, text: str, name: str) -> list[int]:
    match = RANGE.fullmatch(part)
    if match is None:
        raise OptionError(f"{name} is {text!r}: expected numbers such as 128,512 or 1-4 or 64-256+64 or 64-1024*2")
    first, last, operator, step = match.groups()
    return _range(int(first), int(last or first), operator or "+", int(step or 1), f"{name} is {text!r}")


def _range(first: int, last: int, operator: str, step: int, where: str) -> list[int]:
    if first > last:
        raise OptionError(f"{where}: the range {first}-{last} goes down; write the smaller number first")
    if step < 1 or (operator == "*" and (step < 2 or first < 1)):
        raise OptionError(f"{where}: the range {first}-{last}{operator}{step} does not go up")
    numbers = [first]
    while (following := numbers[-1] + step if operator == "+" else numbers[-1] * step) <= last:
        numbers.append(following)
        if len(numbers) > MAX_VALUES:
            raise OptionError(f"{where}: more than {MAX_VALUES} values; use a larger step")
    return numbers
