"""`python -m fuzz.flood --runs 100000`: damaged requests and constraints, as many as a machine can, without atheris.

What is watched is what a client sees: each gets an answer or a refusal of OpenAI's shape, within a second. Ends with a
table and, where something was found, the inputs and 1.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgellm.errors import EdgellmError
from fuzz.corpus import inputs_of
from fuzz.http_server import SECONDS, Wrong, check_exchange
from fuzz.http_text import request
from fuzz.mutate import mutate_bytes, mutate_json
from fuzz.parsers import CONSTRAINT, REQUEST
from fuzz.targets import TARGETS, http_body

LONGEST = 1 << 16  # bytes


@dataclass
class Kind:
    """One kind of damage. `run`: makes an input of a seed and a number, and says what came of it."""

    name: str
    share: int
    run: Callable[[bytes, int], tuple[bytes, str]]
    seeds: list[bytes]
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


def json_bodies(seed: bytes, number: int) -> tuple[bytes, str]:
    content = http_body(mutate_json(seed, LONGEST, number) or seed)[REQUEST]
    return content, _statuses(content)


def broken_bodies(seed: bytes, number: int) -> tuple[bytes, str]:
    """Under a header that is right."""
    asked = json.loads(seed)
    body = mutate_bytes(json.dumps(asked["body"]).encode(), LONGEST, number)
    content = request(asked["path"], body)
    return content, _statuses(content)


def broken_requests(seed: bytes, number: int) -> tuple[bytes, str]:
    content = mutate_bytes(seed, LONGEST, number)
    return content, _statuses(content)


def constraints(seed: bytes, number: int) -> tuple[bytes, str]:
    content = mutate_json(seed, LONGEST, number) or seed
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / CONSTRAINT).write_bytes(content)
        started = time.process_time()
        try:
            TARGETS["constraint"].parse(Path(root))
            outcome = "text"
        except EdgellmError as error:
            outcome = type(error).__name__
    if time.process_time() - started > SECONDS:
        raise Wrong(f"{time.process_time() - started:.1f} s for a constraint")
    return content, outcome


def _statuses(content: bytes) -> str:
    found = check_exchange(content)
    return ",".join(map(str, found[:2])) + (",..." if found[2:] else "") or "closed"


def kinds() -> list[Kind]:
    seeds = {
        name: [path.read_bytes() for path in inputs_of(name)] for name in ("http_body", "http_request", "constraint")
    }
    return [
        Kind("JSON of bodies", 5, json_bodies, seeds["http_body"]),
        Kind("bytes of bodies", 2, broken_bodies, seeds["http_body"]),
        Kind("bytes of requests", 2, broken_requests, seeds["http_request"]),
        Kind("constraints", 1, constraints, seeds["constraint"]),
    ]


def flood(runs: int, start: int = 0, tell: Callable[[str], None] = lambda line: None) -> tuple[list[Kind], list[str]]:
    """What came of `runs` inputs, numbered from `start` on: the same number is the same input."""
    all_kinds, problems = kinds(), []
    for kind in all_kinds:  # what is imported and loaded late is there
        kind.run(kind.seeds[0], 0)
    for number in range(start, start + runs):
        draw = random.Random(number)
        (kind,) = draw.choices(all_kinds, [kind.share for kind in all_kinds])
        started = time.process_time()
        try:
            _, outcome = kind.run(draw.choice(kind.seeds), number)
        except (Exception, Wrong) as error:
            outcome = f"{type(error).__name__}: {error}"
            problems.append(f"{kind.name} {number}: {outcome}")
            tell(problems[-1])
        kind.outcomes[outcome] += 1
        kind.slowest = max(kind.slowest, time.process_time() - started)
        if number % 5000 == 4999:
            tell(f"{number + 1 - start:,} inputs, {len(problems)} found")
    return all_kinds, problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.flood", description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    asked = parser.parse_args()
    started = time.monotonic()
    found, problems = flood(asked.runs, asked.start, lambda line: print(line, file=sys.stderr, flush=True))
    print("| inputs | number | slowest, s of the processor | outcomes |\n|---|---|---|---|")
    for kind in found:
        said = ", ".join(f"{name} {count:,}" for name, count in kind.outcomes.most_common(12))
        print(f"| {kind.name} | {sum(kind.outcomes.values()):,} | {kind.slowest:.2f} | {said} |")
    print(f"\n{asked.runs:,} inputs in {time.monotonic() - started:.0f} s, {len(problems)} found")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
