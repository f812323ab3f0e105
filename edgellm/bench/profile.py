"""How much of a step's time is ONNX Runtime's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from edgellm.ort.binding import Binding


class Inside:
    """Seconds spent inside ONNX Runtime so far."""

    def __init__(self) -> None:
        self.seconds = 0.0


@contextmanager
def timed_graph_runs() -> Iterator[Inside]:
    """Times every run of every graph in this process, each at the cost of two readings of the clock."""
    inside, run = Inside(), Binding.run

    def timed(binding: Binding) -> None:
        start = time.perf_counter()
        run(binding)
        inside.seconds += time.perf_counter() - start

    Binding.run = timed  # type: ignore[method-assign, assignment]
    try:
        yield inside
    finally:
        Binding.run = run  # type: ignore[method-assign]
