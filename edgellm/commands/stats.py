"""The line that --stats prints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from edgellm.generation.results import Piece, Timing
from edgellm.system.memory import peak_memory_bytes


class Stats:
    """Times a load and then one answer, as its user sees them."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._load_s = 0.0
        self._timing: Timing | None = None

    def loaded(self) -> None:
        self._load_s = time.perf_counter() - self._start

    def add(self, timing: Timing) -> None:
        self._timing = timing

    def timed(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """The same pieces, timed as they pass."""
        start, first, tokens = time.perf_counter(), math.nan, 0
        for piece in pieces:
            tokens += len(piece.tokens)
            if math.isnan(first):
                first = time.perf_counter() - start
            yield piece
        self._timing = Timing(first, time.perf_counter() - start, 0, tokens)

    def line(self) -> str:
        memory = peak_memory_bytes()
        parts = [f"load {self._load_s:.2f} s"]
        if self._timing is not None and self._timing.new_tokens:
            parts.append(f"first token after {self._timing.time_to_first_token_s * 1000:.0f} ms")
            parts.append(f"{self._timing.new_tokens} tokens")
            if self._timing.new_tokens > 1:
                parts.append(f"{self._timing.tokens_per_second:.1f} tokens/s")
        if memory is not None:
            parts.append(f"peak memory {memory / 2**20:.0f} MiB")
        return ", ".join(parts)
