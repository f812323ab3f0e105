"""How far a batch is, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from edgellm.bulk.inputs import Facts
from edgellm.bulk.journal import Totals
from edgellm.bulk.lines import Line, Outcome
from edgellm.types import DoubleArray

INTERVAL_S = 1.0  # between two looks at the clock
TRUST = 1e-3  # in the prior, beside the measurements: see `Pace.costs`


@dataclass(frozen=True)
class Status:
    """How far a batch is. `done` lines of `total` have an outcome, `reused` of these since an earlier run; `failed` are
    those without an answer. Tokens and seconds are this run's. `remaining_s`: None while nothing was measured."""

    total: int
    done: int
    reused: int
    failed: int
    prompt_tokens: int
    new_tokens: int
    elapsed_s: float
    remaining_s: float | None


class Pace:
    """What a token of a prompt costs, what a new one, and how many of each are left.

    Seconds are a sum over tokens of both kinds, so times and counts of many moments give both costs, by least squares.
    Lines that are still to come are taken to have as many prompt tokens for their size, and as many new ones, as those
    that are done.
    """

    def __init__(self, facts: Facts, todo: int) -> None:
        """`todo`: lines of this run."""
        self._facts = facts
        self._todo = todo
        self._passed = self._passed_size = 0  # lines that were read, to be done or not
        self._begun = self._begun_size = 0
        self._ended = self._ended_size = 0
        self.prompt_tokens = self.new_tokens = 0  # of lines that have ended
        self._start = self._last = time.perf_counter()
        self._last_tokens = np.zeros(2)
        self._squares, self._products = np.zeros((2, 2)), np.zeros(2)

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._start

    def through(self, lines: Iterable[Line], is_done: Callable[[int], bool]) -> Iterator[Line]:
        """The lines that are to be done, counted as they pass."""
        for line in lines:
            self._passed, self._passed_size = self._passed + 1, self._passed_size + line.size
            if not is_done(line.number):
                self._begun, self._begun_size = self._begun + 1, self._begun_size + line.size
                yield line

    def end(self, outcome: Outcome) -> None:
        self._ended, self._ended_size = self._ended + 1, self._ended_size + outcome.line.size
        self.prompt_tokens += outcome.prompt_tokens
        self.new_tokens += outcome.new_tokens

    def look(self, read: int, made: int) -> bool:
        """Take the time, and whether it was time for it. Tokens of prompts that were read so far, and new ones, those
        of lines included that have not ended."""
        now = time.perf_counter()
        if now - self._last < INTERVAL_S:
            return False
        tokens = np.array([max(read, self.prompt_tokens), max(made, self.new_tokens)], np.float64)
        self.measure(tokens - self._last_tokens, now - self._last)
        self._last, self._last_tokens = now, tokens
        return True

    def measure(self, tokens: DoubleArray, seconds: float) -> None:
        """tokens: [2], of prompts and new ones, that took so long."""
        self._squares += np.outer(tokens, tokens)
        self._products += tokens * seconds

    def costs(self) -> tuple[float, float]:
        """Seconds for a token of a prompt and for a new one. Where all moments are alike they cannot be told apart:
        then both are nearly the same, which gives the right sum."""
        seconds, tokens = self._last - self._start, float(self._last_tokens.sum())
        prior = TRUST * np.maximum(np.diag(self._squares), 1)
        squares, products = self._squares + np.diag(prior), self._products + prior * seconds / max(tokens, 1)
        prompt, new = np.linalg.solve(squares, products).tolist()
        if prompt < 0:
            return 0.0, float(products[1] / squares[1, 1])
        return (prompt, new) if new >= 0 else (float(products[0] / squares[0, 0]), 0.0)

    def remaining_s(self) -> float | None:
        if not self._ended or not self._squares.any():
            return None
        ahead = self._todo - self._begun
        rest, rest_size = self._facts.lines - self._passed, self._facts.size - self._passed_size
        size = self._begun_size - self._ended_size + (ahead * rest_size / rest if rest else 0)
        read, made = self._last_tokens.tolist()  # those of lines that have not ended are behind us, too
        prompt = size * self.prompt_tokens / max(self._ended_size, 1) - max(read - self.prompt_tokens, 0)
        new = (self._todo - self._ended) * self.new_tokens / self._ended - max(made - self.new_tokens, 0)
        for_prompt, for_new = self.costs()
        return for_prompt * max(prompt, 0) + for_new * max(new, 0)

    def status(self, totals: Totals, reused: int) -> Status:
        return Status(
            total=self._facts.lines,
            done=totals.answered + totals.failed,
            reused=reused,
            failed=totals.failed,
            prompt_tokens=self.prompt_tokens,
            new_tokens=self.new_tokens,
            elapsed_s=self.elapsed_s,
            remaining_s=self.remaining_s(),
        )
