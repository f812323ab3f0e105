"""What is measured: every combination of prompt length, new tokens, batch size, beams and threads, listed as for
llama-bench: `128,512`, `1-4`, `64-256+64`, `64-1024*2`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from edgellm.errors import InputError, OptionError
from edgellm.ort.loaded_graph import MAX_THREADS

RANGE = re.compile(r"(\d+)(?:-(\d+)(?:([+*])(\d+))?)?", re.ASCII)
MAX_VALUES = 1000


@dataclass(frozen=True)
class Case:
    """One combination. Without `prompt_tokens`, generation begins behind a single token; without `new_tokens` there is
    the prompt only."""

    prompt_tokens: int
    new_tokens: int
    batch_size: int
    beams: int
    threads: int

    @property
    def rows(self) -> int:
        """Rows that the model decodes side by side."""
        return self.batch_size * self.beams

    @property
    def prompt_length(self) -> int:
        return max(self.prompt_tokens, 1)

    @property
    def generated(self) -> int:
        """New tokens of each row: the prompt alone gives the first."""
        return max(self.new_tokens, 1)

    @property
    def name(self) -> str:
        """The case for a person, such as "pp128+tg64, 2 threads"."""
        prompt = f"pp{self.prompt_tokens}" if self.prompt_tokens else ""
        new = f"tg{self.new_tokens}" if self.new_tokens else ""
        batch = f", batch {self.batch_size}" if self.batch_size > 1 else ""
        beams = f", {self.beams} beams" if self.beams > 1 else ""
        return f"{'+'.join(filter(None, (prompt, new)))}{batch}{beams}, {threads_text(self.threads)}"


def threads_text(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def plan_cases(
    prompt_tokens: Sequence[int],
    new_tokens: Sequence[int],
    batch_sizes: Sequence[int],
    beams: Sequence[int],
    threads: Sequence[int],
    *,
    context_length: int,
) -> tuple[Case, ...]:
    """All combinations, threads outermost, so that what is measured per thread count lies together.

    Raises OptionError for numbers out of range, InputError where tokens do not fit in the model's context.
    """
    _check("prompt_tokens", prompt_tokens, at_least=0)
    _check("new_tokens", new_tokens, at_least=0)
    if 1 in new_tokens:
        raise OptionError("new_tokens is 1, which the prompt alone gives; ask for 2 or more to time one, or 0 for none")
    _check("batch_sizes", batch_sizes)
    _check("beams", beams)
    _check("threads", threads, at_most=MAX_THREADS)
    cases = tuple(
        Case(prompt, new, batch, width, count)
        for count, width, batch, prompt, new in product(threads, beams, batch_sizes, prompt_tokens, new_tokens)
        if prompt or new
    )
    if not cases:
        raise OptionError("0 prompt tokens and 0 new ones leave nothing to measure")
    longest = max(cases, key=lambda case: case.prompt_length + case.generated)
    if longest.prompt_length + longest.generated > context_length:
        raise InputError(
            f"{longest.prompt_tokens} prompt tokens and {longest.new_tokens} new ones do not fit in the model's "
            f"context of {context_length}; ask for fewer"
        )
    return cases


def _check(name: str, values: Sequence[int], *, at_least: int = 1, at_most: int | None = None) -> None:
    if not values:
        raise OptionError(f"{name} is empty, expected at least one number")
    expected = f"from {at_least}" if at_most is None else f"from {at_least} to {at_most}"
    for value in values:
        if type(value) is not int or value < at_least or (at_most is not None and value > at_most):
            raise OptionError(f"{name} is {value!r}, expected whole numbers {expected}")


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
