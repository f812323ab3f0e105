"""Continuous batching: in each step, every answer gets a token, and a prompt that waits is read a piece further.

The engine's rows are those of sequences, behind them those of beams, and at the end the one that is being read. Where
memory is short, the youngest sequence makes room: its row goes, and is read again, tokens of its own included, when
there is room. With edgellm's kernels that gives the same numbers to the last bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from edgellm.decoding import Decoder, PromptLookup, step
from edgellm.decoding.beam_search import BeamSearch
from edgellm.decoding.decoder import HEADROOM
from edgellm.decoding.prompt_lookup import Verifier
from edgellm.decoding.sequence import Continuation
from edgellm.engines.contract import RowEngine
from edgellm.engines.history import MIN_CHUNK
from edgellm.errors import EdgellmError
from edgellm.serving.job import Job, Turn
from edgellm.serving.prefixes import BLOCK, PrefixCache
from edgellm.types import Logits

IDLE_BYTES = 64 << 20  # of a cache without rows: a larger one is given back
PIECE = 128  # tokens of prompts that are read between two steps, where those are several short ones


@dataclass(frozen=True)
class Limits:
    """`rows`: the most that are decoded together. `tokens`: the most that their cache holds."""

    rows: int
    tokens: int


@dataclass
class Counts:
    """What a scheduler has done."""

    steps: int = 0
    prompt_tokens: int = 0  # that were asked for
    read_tokens: int = 0  # of these, those of prompts that have been read
    reused_tokens: int = 0  # of these, those that were known
    new_tokens: int = 0
    preemptions: int = 0


@dataclass(frozen=True, eq=False)
class Reading:
    """A turn whose prompt is the engine's last row. `left`: how many tokens there were to read, a source's included."""

    turn: Turn
    pieces: Generator[Logits | None]
    left: int


class Scheduler:
    """Not for two threads at once. `new_engine`: an empty one; another takes its place where a run fails."""

    def __init__(self, new_engine: Callable[[], RowEngine], limits: Limits, prefixes: PrefixCache) -> None:
        self.limits = limits
        self.counts = Counts()
        self.prefixes = prefixes
        self._new_engine = new_engine
        self._engine = new_engine()
        self._max_rows = limits.rows
        self._read_again: list[Job] = []  # since a run failed; fewer rows go on until these have ended
        self._waiting: deque[Turn] = deque()
        self._reading: Reading | None = None
        self._rows: list[tuple[Job, Continuation]] = []
        self._searches: list[Job] = []
        self._lookup: PromptLookup | None = None  # while a row is alone

    @property
    def idle(self) -> bool:
        return not (self._waiting or self._reading or self._rows or self._searches)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len({id(job) for job, _ in self._rows}) + len(self._searches) + (self._reading is not None)

    @property
    def cache_tokens(self) -> int:
        """Of the rows, those of their sources and those that beams may still need included."""
        now = self._reading  # others may ask meanwhile
        reading = 0 if now is None else now.turn.needs_tokens
        rows = sum(job.source_tokens + sequence.prompt_len + len(sequence.tokens) for job, sequence in self._rows)
        return rows + reading + sum(job.most_tokens for job in self._searches)

    def add(self, job: Job) -> None:
        self.counts.prompt_tokens += len(job.beginning.prompt)
        self._waiting.append(Turn.first(job))

    def step(self) -> None:
        """A token for each answer, and a piece of a prompt."""
        self.counts.steps += 1
        self._end_early()
        self._decode()
        self._read()
        if self.idle and self._engine.cache_bytes > IDLE_BYTES:
            self._engine = self._new_engine()

    def fail_all(self, error: Exception) -> None:
        """End all jobs without an answer."""
        jobs = self._jobs()
        self._waiting.clear()
        for job in jobs:
            job.fail(error)
        self._start_over()

    def stop_all(self, too_late: Exception) -> None:
        """End all jobs with what there is; those that have not begun with an error."""
        for turn in self._waiting:
            if turn.is_first:
                turn.job.fail(too_late)
        for job in self._jobs():
            job.stop("cancelled")
        self._forget_ended()

    # Jobs that end by themselves

    def _jobs(self) -> set[Job]:
        turns = [*self._waiting, *([self._reading.turn] if self._reading else [])]
        return {turn.job for turn in turns} | {job for job, _ in self._rows} | set(self._searches)

    def _end_early(self) -> None:
        """Jobs that nobody waits for, and those whose time is over before they have begun."""
        cancelled = [job for job in self._jobs() if job.listener.is_cancelled()]
        for job in cancelled:
            job.stop("cancelled")
        late = [turn.job for turn in self._waiting if turn.job.out_of_time]
        if self._reading is not None and self._reading.turn.job.out_of_time:
            late.append(self._reading.turn.job)
        for job in late:
            job.stop("time")
        if cancelled or late:
            self._forget_ended()

    def _forget_ended(self) -> None:
        self._waiting = deque(turn for turn in self._waiting if not turn.job.over)
        if self._reading is not None and self._reading.turn.job.over:
            self._stop_reading()
        self._settle()

    # Rows

    def _decode(self) -> None:
        """Another token for each row."""
        self._make_room()
        if not self._rows and not self._searches:
            return
        tokens = [sequence.tokens[-1] for _, sequence in self._rows]
        tokens += [token for job in self._searches for token in _search(job).next_tokens()]
        try:
            logits = self._decoder().decode(np.array(tokens))
        except EdgellmError as error:
            self._recover(error)
            return
        for row, (job, sequence) in enumerate(self._rows):
            self._advance(job, [sequence], logits[row : row + 1])
        for job in self._searches:
            self._advance(job, [], logits)
        self._settle()

    def _decoder(self) -> Decoder:
        """The engine; of a row that is alone, one that reads what is foretold of it ahead."""
        is_alone = len(self._rows) == 1 and not self._searches and self._reading is None
        if not is_alone or not self._rows[0][0].beginning.drafts:
            self._forget_draft()
            return self._engine
        if self._lookup is None:
            ((job, sequence),) = self._rows
            held = sequence.ids()[:-1]
            self._lookup = PromptLookup(cast(Verifier, self._engine), [job.beginning], [held])
        return self._lookup

    def _forget_draft(self) -> None:
        """Before the engine's rows become others."""
        if self._lookup is not None:
            self._lookup.forget_draft()
            self._lookup = None

    def _advance(self, job: Job, sequences: Sequence[Continuation], logits: Logits) -> None:
        """Sequences of a job, or its beams. What fails is its own."""
        if job.over:
            return
        try:
            if job.search is not None:
                job.search.step(logits, None)
                return
            for emitted in step(sequences, logits):
                self.counts.new_tokens += 1
                job.listener.hear(emitted)
        except Exception as error:  # also one that nobody expects: those of the others go on
            job.fail(error)

    def _settle(self) -> None:
        """Let the engine keep the rows of what goes on, and tell those who wait of what has ended."""
        going = [sequence.finish_reason is None and not job.over for job, sequence in self._rows]
        for row, (_, sequence) in enumerate(self._rows):
            if not going[row]:
                self._keep_prefix(row, sequence)
        jobs = [*(job for job, _ in self._rows), *self._searches]
        rows = packed(going)
        self._rows = [self._rows[row] for row in rows]
        self._searches = [job for job in self._searches if not job.over and not _search(job).done]
        self._arrange(rows)
        for job in jobs:
            job.finish_if_done()

    def _arrange(self, rows: list[int], joined: Job | None = None) -> None:
        """Have the engine continue its old `rows`, behind them those of beams, and the one that is being read.
        `joined`: a job whose beams begin behind the last row."""
        last = self._engine.rows - 1
        for job in self._searches:
            old = _search(job).move_to(len(rows))
            rows += [last] * len(old) if job is joined else old
        if self._reading is not None:
            rows.append(last)
        if rows != list(range(last + 1)):
            self._forget_draft()
            self._engine.reorder(np.array(rows, np.int64))

    def _keep_prefix(self, row: int, sequence: Continuation) -> None:
        """What another turn of a chat may begin with; the last token was never read."""
        if self._engine.gives_cache:
            self.prefixes.add(sequence.ids()[:-1], lambda start, stop: self._engine.taken(row, start, stop))

    # Memory

    def _make_room(self) -> None:
        """For another token of each row."""
        while self.cache_tokens + len(self._rows) > self.limits.tokens:
            if self._reading is not None:
                self._waiting.appendleft(self._reading.turn)
                self._stop_reading()
            elif len(self._rows) + len(self._searches) > 1 and self._rows:
                self._put_off(max(range(len(self._rows)), key=lambda row: self._rows[row][0].number))
            else:
                return

    def _put_off(self, row: int) -> None:
        self.counts.preemptions += 1
        job, sequence = self._rows[row]
        self._keep_prefix(row, sequence)
        self._waiting.appendleft(Turn.again(job, sequence))
        rows = packed([other != row for other in range(len(self._rows))])
        self._rows = [self._rows[other] for other in rows]
        self._arrange(rows)

    def _recover(self, error: EdgellmError) -> None:
        """After a run that failed: go on with fewer rows, which are read again, until all of these have ended; one by
        itself ends with the error."""
        again = [Turn.again(job, sequence) for job, sequence in self._rows]
        if self._reading is not None:
            again.append(self._reading.turn)
        for job in self._searches:
            job.fail(error)
        if len(again) == 1 and not self._searches:
            again.pop().job.fail(error)
        self._max_rows = max(1, len(again) // 2)
        self._read_again = [turn.job for turn in again]
        self._waiting.extendleft(sorted(again, key=lambda turn: turn.job.number, reverse=True))
        self._start_over()

    def _start_over(self) -> None:
        self._reading, self._rows, self._searches, self._lookup = None, [], [], None
        self._engine = self._new_engine()

    # Prompts

    def _read(self) -> None:
        """A piece of a prompt, or several that are short."""
        read = 0
        while read < PIECE:
            begins = self._reading is None
            if begins and not self._begin():
                return
            assert self._reading is not None
            turn = self._reading.turn
            try:
                logits = next(self._reading.pieces)
            except EdgellmError as error:
                self._recover(error)
                return
            if logits is None:
                return
            read += self._reading.left if begins else PIECE
            self._join(turn, logits)

    def _begin(self) -> bool:
        """Begin to read the turn that has waited longest, if there is one and room for it."""
        if all(job.over for job in self._read_again):
            self._read_again, self._max_rows = [], self.limits.rows
        if not self._waiting or not self._has_room(self._waiting[0]):
            return False
        self._forget_draft()
        turn = self._waiting.popleft()
        length, beginning = len(turn.tokens), turn.job.beginning
        known = self.prefixes.find(turn.tokens, length - MIN_CHUNK) if self._engine.gives_cache else []
        self.counts.reused_tokens += len(known) * BLOCK
        headroom = min(HEADROOM, beginning.max_new_tokens)
        pieces = self._engine.read(turn.tokens, beginning.source, headroom=headroom, known=known)
        source = 0 if beginning.source is None else len(beginning.source)
        self._reading = Reading(turn, pieces, source + length - len(known) * BLOCK)
        return True

    def _has_room(self, turn: Turn) -> bool:
        """A turn that is alone always has: see `Engine.submit`."""
        rows = len(self._rows) + sum(job.rows for job in self._searches)
        tokens = self.cache_tokens + len(self._rows) + turn.needs_tokens
        return not rows or (rows + turn.rows <= self._max_rows and tokens <= self.limits.tokens)

    def _join(self, turn: Turn, logits: Logits) -> None:
        """A turn whose prompt was read goes on. logits: [1, vocab]."""
        job, last, self._reading = turn.job, self._engine.rows - 1, None
        if turn.is_first:
            self.counts.read_tokens += len(turn.tokens)
        if self._engine.gives_cache:
            self.prefixes.add(turn.tokens, lambda start, stop: self._engine.taken(last, start, stop))
        self._advance(job, turn.sequences, logits.repeat(max(1, len(turn.sequences)), axis=0))
        going = [] if job.over else [sequence for sequence in turn.sequences if sequence.finish_reason is None]
        rows = [*range(len(self._rows)), *[last] * len(going)]
        self._rows += [(job, sequence) for sequence in going]
        if job.search is not None and not job.over and not job.search.done:
            self._searches.append(job)
        self._arrange(rows, joined=job)
        job.finish_if_done()

    def _stop_reading(self) -> None:
        assert self._reading is not None
        self._reading.pieces.close()
        self._reading = None


def packed(going: Sequence[bool]) -> list[int]:
    """The old row of each new one, where some rows do not go on: the last ones take the places of those that left, so
    that few are moved."""
    rest: Iterator[int] = (row for row in reversed(range(len(going))) if going[row])
    return [row if going[row] else next(rest) for row in range(sum(going))]


def _search(job: Job) -> BeamSearch:
    assert job.search is not None
    return job.search
