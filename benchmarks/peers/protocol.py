"""What a worker process speaks: a JSON line per request on standard input, a JSON line per answer on standard output.

Its one argument is JSON: {"model": path, "threads": count, "context": longest prompt and answer in tokens}. It imports
its libraries, and prints {"bare_mb", "load_s"} once its model is loaded: peak RSS in MiB before the model, seconds of
loading it. Requests, one a line:

{"prompt_length", "new_tokens"}             -> {"first_token_s", "decode_s", "peak_rss_mb"}: seconds from the call to
                                               the first new token, from there to the last, and the peak RSS so far
the same with "rows" and "beams"            -> the same, of a batch of `rows` prompts with `beams` beams each
{"token_ids", "out"}                        -> {}: the logits after each token, [length, vocab] float32, are in `out`

Anything that cannot be answered gives {"error": why}. Prompts are the same seeded token ids for every peer.
Standard library only: it is imported in every peer's environment.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Emitted = Callable[[], None]
Seconds = tuple[float, float]  # from the call to the first new token, from there to the last


@dataclass(frozen=True)
class Settings:
    """What every arm is given alike."""

    model: str
    threads: int
    context: int


@dataclass(frozen=True)
class Arm:
    """A loaded model.

    timed(ids, new_tokens): greedy, the end token ignored.
    logits(ids): [length, vocab] float32 after each token; None where the peer cannot.
    several(prompts, new_tokens, beams): a batch with beams; ours only.
    """

    timed: Callable[[list[int], int], Seconds]
    logits: Callable[[list[int]], Any] | None = None
    several: Callable[[Sequence[list[int]], int, int], Seconds] | None = None


def by_token(generate: Callable[[list[int], int, Emitted], None]) -> Callable[[list[int], int], Seconds]:
    """`timed` out of a function that calls `emitted` once per new token."""

    def timed(ids: list[int], new_tokens: int) -> Seconds:
        times: list[float] = []
        start = time.perf_counter()
        generate(ids, new_tokens, lambda: times.append(time.perf_counter()))
        if len(times) != new_tokens:
            raise AssertionError(f"asked for {new_tokens} tokens, got {len(times)}")
        return times[0] - start, times[-1] - times[0]

    return timed


def settings() -> Settings:
    return Settings(**json.loads(sys.argv[1]))


def prompt(length: int, row: int = 0) -> list[int]:
    """Token ids that every vocabulary of the benchmark's models has."""
    draw = random.Random(length + 1_000_003 * row)
    return [draw.randrange(300, 40000) for _ in range(length)]


@contextmanager
def printing_apart() -> Iterator[None]:
    """Around the import of a library that prints: what it prints goes to standard error, not among the answers."""
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(answers, 1)
        os.close(answers)


def serve(load: Callable[[Settings], Arm]) -> None:
    """Load the model, then answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not end up among the answers
    start, bare = time.perf_counter(), peak_rss_mb()
    arm = load(settings())
    loaded = time.perf_counter()
    _answer(answers, {"bare_mb": bare, "load_s": loaded - start})
    for line in sys.stdin:
        try:
            _answer(answers, _answered(arm, json.loads(line)))
        except Exception as error:  # the other systems' figures must not be lost with this one's
            _answer(answers, {"error": f"{type(error).__name__}: {error}".splitlines()[0]})


def _answered(arm: Arm, request: dict[str, Any]) -> dict[str, float]:
    if "token_ids" in request:
        return _written_logits(arm, request["token_ids"], request["out"])
    if "rows" in request:
        first, rest = _several(arm, **request)
    else:
        first, rest = arm.timed(prompt(request["prompt_length"]), request["new_tokens"])
    return {"first_token_s": first, "decode_s": rest, "peak_rss_mb": peak_rss_mb()}


def _several(arm: Arm, prompt_length: int, new_tokens: int, rows: int, beams: int) -> Seconds:
    if arm.several is None:
        raise NotImplementedError("no batch and beam arm for this system")
    return arm.several([prompt(prompt_length, row) for row in range(rows)], new_tokens, beams)


def _written_logits(arm: Arm, ids: list[int], out: str) -> dict[str, float]:
    if arm.logits is None:
        raise NotImplementedError("its API gives no logits")
    import numpy as np

    logits = np.ascontiguousarray(arm.logits(ids), np.float32)
    if len(logits) != len(ids):
        raise AssertionError(f"logits of {len(logits)} positions for {len(ids)} tokens")
    np.save(out, logits)
    return {}


def peak_rss_mb() -> float:
    """VmHWM: of this program alone, where getrusage's figure is inherited from the parent."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def _answer(stream: Any, data: dict[str, float]) -> None:
    print(json.dumps(data), file=stream, flush=True)
