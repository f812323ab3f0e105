"""What a worker process speaks: a JSON line per request on standard input, a JSON line per answer on standard output.

Request: {"prompt_length": tokens, "new_tokens": tokens}. Answer: {"first_token_s": seconds from the call to the first
new token, "decode_s": seconds from there to the last, "peak_rss_mb": of the process so far}. The first line a worker
prints is {"load_s": seconds}. Prompts are the same seeded token ids for every peer.
Standard library only: it is imported in every peer's environment.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator

Generate = Callable[[list[int], int], Iterator[object]]


def prompt(length: int) -> list[int]:
    """Token ids that every vocabulary of the benchmark's models has."""
    draw = random.Random(length)
    return [draw.randrange(300, 40000) for _ in range(length)]


def serve(load: Callable[[], Generate]) -> None:
    """Load the model, then answer requests until the input ends. `load` returns a function that yields once per new
    token."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not end up among the answers
    start = time.perf_counter()
    generate = load()
    _answer(answers, {"load_s": time.perf_counter() - start})
    for line in sys.stdin:
        request = json.loads(line)
        _answer(answers, _timed(generate, request["prompt_length"], request["new_tokens"]))


def _timed(generate: Generate, length: int, new_tokens: int) -> dict[str, float]:
    ids = prompt(length)
    start = time.perf_counter()
    tokens = generate(ids, new_tokens)
    next(iter(tokens))
    first = time.perf_counter()
    count = 1 + sum(1 for _ in tokens)
    end = time.perf_counter()
    if count != new_tokens:
        raise AssertionError(f"asked for {new_tokens} tokens, got {count}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"first_token_s": first - start, "decode_s": end - first, "peak_rss_mb": peak / 1024}


def _answer(stream: object, data: dict[str, float]) -> None:
    print(json.dumps(data), file=stream, flush=True)  # type: ignore[call-overload]
