"""An engine whose rows come and go, beside the tokens of each: what a row gets is what it would get alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TOKENS = 2, 60  # of rows and sources: from, to


@dataclass
class Row:
    """`read` of its tokens came as a prompt. `source`: of an encoder-decoder."""

    tokens: list[int]
    read: int
    source: list[int] | None = None


class Driven:
    """`alone`: [vocab], what a row by itself gets behind its last token. `tolerance`: a share of the largest logit.
    `sources`: whether each row is to have one."""

    def __init__(
        self, engine: Any, alone: Callable[[Row], np.ndarray], tolerance: float = 1e-4, *, sources: bool = False
    ) -> None:
        self.engine, self.alone, self.tolerance, self.sources = engine, alone, tolerance, sources
        self.rows: list[Row] = []
        self.rng = np.random.default_rng(3)

    def prefill(self, *lengths: int) -> None:
        self.rows = [self.row(length) for length in lengths]
        sources = [np.array(row.source) for row in self.rows] if self.sources else None
        self.check(self.engine.prefill([np.array(row.tokens) for row in self.rows], sources), self.rows)

    def insert(self, length: int, *, beside: bool = False, **options: Any) -> None:
        """`beside`: the others go on between the pieces."""
        row = self.row(length)
        for logits in self.engine.read(*arrays(row), **options):
            if logits is not None:
                self.check(logits, [row])
            elif beside and self.rows:
                self.decode()
        self.rows.append(row)

    def drop(self, *rows: int) -> None:
        self.engine.drop(rows)
        self.rows = [row for i, row in enumerate(self.rows) if i not in rows]
        assert self.engine.rows == len(self.rows)

    def reorder(self, *parents: int) -> None:
        self.engine.reorder(np.array(parents))
        old = self.rows
        self.rows = [Row(list(old[parent].tokens), old[parent].read, old[parent].source) for parent in parents]

    def decode(self, times: int = 1) -> None:
        for _ in range(times):
            tokens = self.rng.integers(*TOKENS, len(self.rows))
            for row, token in zip(self.rows, tokens.tolist(), strict=True):
                row.tokens.append(token)
            self.check(self.engine.decode(tokens), self.rows)

    def check(self, logits: np.ndarray, rows: Sequence[Row]) -> None:
        expected = np.stack([self.alone(row) for row in rows])
        np.testing.assert_allclose(logits, expected, rtol=0, atol=self.tolerance * np.abs(expected).max())

    def row(self, length: int) -> Row:
        source = self.rng.integers(*TOKENS, self.rng.integers(1, 25)).tolist() if self.sources else None
        return Row(self.rng.integers(*TOKENS, length).tolist(), length, source)


def arrays(row: Row) -> tuple[np.ndarray, np.ndarray | None]:
    """Its tokens and its source."""
    return np.array(row.tokens), None if row.source is None else np.array(row.source)


def step_by_step(engine: Any) -> Callable[[Row], np.ndarray]:
    """What another engine gives each row when it has no other."""

    def alone(row: Row) -> np.ndarray:
        tokens, source = arrays(row)
        logits = engine.prefill([tokens[: row.read]], [source])
        for token in tokens[row.read :]:
            logits = engine.decode(np.array([token]))
        return logits[0].copy()

    return alone


def come_and_go(driven: Driven, first: Sequence[int], *later: int) -> None:
    """Rows of the lengths `first` begin together, four of the lengths `later` one by one."""
    driven.prefill(*first)
    driven.decode(2)
    driven.insert(later[0])
    driven.decode(2)
    driven.drop(0)
    driven.insert(later[1])
    driven.decode(3)
    driven.reorder(2, 0, 0, 1)
    driven.insert(later[2])
    driven.decode(2)
    driven.drop(3, 0)
    driven.decode()
    driven.insert(later[3])
    driven.decode(5)


def begin_and_end_empty(driven: Driven, length: int) -> None:
    """Twice all rows go, and then others begin together."""
    for _ in range(2):
        driven.insert(length)
        driven.decode(2)
        driven.insert(length + 2)
        driven.decode(2)
        driven.drop(0, 1)
    driven.insert(length)
    driven.decode()
    driven.prefill(length, length)
    driven.decode()


def assert_exact_however_they_came(
    new_engine: Callable[[], Any], start: Sequence[int], sources: Sequence[np.ndarray], *, together: bool = True
) -> None:
    """Rows with these three sources begin at different steps and are decoded together, in one run if `together`: each
    gets to the last bit what it gets by itself."""
    came, steps, engine = [0, 2, 3], 7, new_engine()
    found: list[list[np.ndarray]] = [[] for _ in came]
    tokens = np.random.default_rng(1).integers(*TOKENS, (steps, len(came)))
    for step in range(steps):
        if step in came:
            row = came.index(step)
            found[row] += [logits[0].copy() for logits in engine.read(np.array(start), sources[row])]
        for row, logits in enumerate(engine.decode(tokens[step, : engine.rows])):
            found[row].append(logits.copy())
    assert len(engine._groups) == (1 if together else len(came))
    for row, source in enumerate(sources):
        engine = new_engine()
        alone = [engine.prefill([np.array(start)], [source])[0].copy()]
        alone += [engine.decode(tokens[step, row : row + 1])[0].copy() for step in range(came[row], steps)]
        np.testing.assert_array_equal(found[row], alone)
