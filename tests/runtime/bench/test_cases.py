"""What `edgellm bench` sweeps: lists of numbers, and every combination of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgellm.bench import run_bench
from edgellm.bench.cases import parse_numbers, plan_cases
from edgellm.errors import InputError, OptionError


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("128", (128,)),
        ("128, 512,128", (128, 512)),
        ("1-4", (1, 2, 3, 4)),
        ("64-256+64", (64, 128, 192, 256)),
        ("64-1000*2", (64, 128, 256, 512)),
        ("0,16-16", (0, 16)),
        ("1,8-16*2,3", (1, 8, 16, 3)),
    ],
)
def test_lists(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_numbers(text, "-p", at_least=0) == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected numbers such as"),
        ("a", "expected numbers such as"),
        ("1,,2", "expected numbers such as"),
        ("-3", "expected numbers such as"),
        ("1.5", "expected numbers such as"),
        ("²", "expected numbers such as"),
        ("8-4", "the range 8-4 goes down"),
        ("1-4+0", r"the range 1-4\+0 does not go up"),
        ("1-4*1", r"the range 1-4\*1 does not go up"),
        ("0-4*2", r"the range 0-4\*2 does not go up"),
        ("0,4", "0 is below 1"),
        ("1-100000000", "more than 1000 values"),
    ],
)
def test_bad_lists(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_numbers(text, "--threads")


def test_every_combination_is_a_case_and_threads_vary_slowest() -> None:
    cases = plan_cases((0, 8), (0, 4), (1, 2), (1, 3), (1, 2), context_length=12)
    assert len(cases) == len(set(cases)) == 3 * 2 * 2 * 2  # of the lengths, 0 and 0 leaves nothing to measure
    assert [case.threads for case in cases] == [1] * 12 + [2] * 12
    assert cases[0].name == "tg4, 1 thread"
    assert cases[-1].name == "pp8+tg4, batch 2, 3 beams, 2 threads"
    assert cases[-1].rows == 6


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"prompt_tokens": 90}, InputError, "90 prompt tokens and 64 new ones do not fit in the model's context of 96"),
        ({"prompt_tokens": [8, 96], "new_tokens": 0}, InputError, "96 prompt tokens and 0 new ones do not fit"),
        ({"prompt_tokens": 0, "new_tokens": 0}, OptionError, "nothing to measure"),
        ({"new_tokens": 1}, OptionError, "new_tokens is 1, which the prompt alone gives"),
        ({"threads": 0}, OptionError, "threads is 0, expected whole numbers from 1 to 1024"),
        ({"threads": 2000}, OptionError, "threads is 2000"),
        ({"beams": [1, True]}, OptionError, "beams is True"),
        ({"batch_sizes": []}, OptionError, "batch_sizes is empty"),
        ({"repeats": 0}, OptionError, "repeats is 0"),
        ({"loads": -1}, OptionError, "loads -1"),
    ],
)
def test_numbers_that_cannot_be_measured(
    package: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run_bench(package, **changes)
