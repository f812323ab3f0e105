"""What a worker process of the load benchmark speaks, in the manner of `protocol`: it prints {"load_s"} once its model
is loaded, and answers each line

{"clients", "requests": [[prompt_length, new_tokens], ...], "first": the first one's number, which seeds its tokens}
-> {"seconds", "cpu_s", "first_token_s", "total_s", "peak_rss_mb"}

Clients take the next request when their last one is answered (a closed loop). `seconds`: from the first request to the
last answer; `cpu_s`: the time of processors meanwhile, the system's included; the two lists: of each request, from when
a client sent it. Greedy, the end token ignored.
Standard library only: it is imported in every peer's environment.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from protocol import Settings, peak_rss_mb, prompt, settings


@dataclass
class Asked:
    """A request, and when what became of it, in seconds of the clock."""

    ids: list[int]
    new_tokens: int
    sent: float = 0
    first: float = 0
    last: float = 0
    count: int = field(default=0)

    def emitted(self, count: int = 1) -> None:
        """So many new tokens have come."""
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.count += count


Run = Callable[[Sequence[Asked], int], None]  # all requests by so many clients


def by_threads(answer: Callable[[Asked], None]) -> Run:
    """A thread for each client. answer: sends a request, tells it of its tokens, and returns at its end."""

    def run(requests: Sequence[Asked], clients: int) -> None:
        waiting: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        for each in [*requests, *[None] * clients]:
            waiting.put(each)

        def client() -> None:
            while (asked := waiting.get()) is not None:
                asked.sent = time.perf_counter()
                answer(asked)

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def serve(load: Callable[[Settings], Run]) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not end up among the answers
    start = time.perf_counter()
    run = load(settings())
    print(json.dumps({"load_s": time.perf_counter() - start}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answered(run, **json.loads(line))), file=answers, flush=True)


def _answered(run: Run, clients: int, requests: list[list[int]], first: int) -> dict[str, object]:
    asked = [Asked(prompt(length, row), new) for row, (length, new) in enumerate(requests, first)]
    start, cpu = time.perf_counter(), time.process_time()
    run(asked, clients)
    cpu_s = time.process_time() - cpu
    wrong = [one for one in asked if one.count != one.new_tokens]
    if wrong:
        return {"error": f"{len(wrong)} answers have another number of tokens than was asked for"}
    return {
        "seconds": max(one.last for one in asked) - start,
        "cpu_s": cpu_s,
        "first_token_s": [one.first - one.sent for one in asked],
        "total_s": [one.last - one.sent for one in asked],
        "peak_rss_mb": peak_rss_mb(),
    }
