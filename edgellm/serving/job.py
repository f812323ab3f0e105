"""A request on its way: its sequences or beams, and who hears of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgellm.decoding.beam_search import BeamSearch
from edgellm.decoding.sequence import Beginning, Continuation, Emitted, Hypothesis
from edgellm.types import TokenArray


class Listener(Protocol):
    """The one who waits for an answer. All of it is called in the scheduler's thread."""

    def is_cancelled(self) -> bool: ...

    def hear(self, emitted: Emitted) -> None:
        """Another token, of a sequence that is not of beams."""

    def finish(self, hypotheses: Sequence[Hypothesis]) -> None:
        """The end: as `decoding.search` gives them."""

    def fail(self, error: Exception) -> None:
        """The end, without an answer."""


@dataclass(eq=False)
class Job:
    """A prompt and what becomes of it. `number`: the jobs' order of arrival. `source_tokens`: what each row's source
    takes, as tokens of the cache; 0 where there is none."""

    beginning: Beginning
    listener: Listener
    number: int
    source_tokens: int = 0
    over: bool = field(default=False, init=False)  # its listener has heard the end

    def __post_init__(self) -> None:
        plan = self.beginning.plan
        self.sequences = [self.beginning.sequence(copy, copy) for copy in range(plan.num_sequences)]
        self.search = BeamSearch(self.beginning, 0) if plan.has_beams else None

    @property
    def rows(self) -> int:
        """The most that it takes."""
        return self.beginning.plan.options.rows

    @property
    def most_tokens(self) -> int:
        """That its rows can grow to, together."""
        return self.rows * (self.source_tokens + len(self.beginning.prompt) + self.beginning.max_new_tokens)

    @property
    def out_of_time(self) -> bool:
        return self.beginning.plan.ends.of_time() is not None

    def stop(self, reason: str) -> None:
        """End it where it is."""
        for sequence in self.sequences:
            sequence.finish_reason = sequence.finish_reason or reason
        if self.search is not None and not self.over:
            self._finish([self.beginning.nothing(reason)])
        self.finish_if_done()

    def finish_if_done(self) -> None:
        if self.over:
            return
        if self.search is not None and self.search.done:
            self._finish(self.search.hypotheses())
        elif self.search is None and all(sequence.finish_reason for sequence in self.sequences):
            self._finish([sequence.hypothesis() for sequence in self.sequences])

    def _finish(self, hypotheses: Sequence[Hypothesis]) -> None:
        self.over = True
        try:
            self.listener.finish(hypotheses)
        except Exception as error:  # those who wait for others must not hear of it
            self.listener.fail(error)

    def fail(self, error: Exception) -> None:
        if not self.over:
            self.over = True
            self.listener.fail(error)


@dataclass(frozen=True, eq=False)
class Turn:
    """What has to be read before a job goes on: its prompt, behind which all of its `sequences` or beams begin, or one
    sequence that had made room for others."""

    job: Job
    tokens: TokenArray
    sequences: Sequence[Continuation]

    @classmethod
    def first(cls, job: Job) -> Turn:
        return cls(job, job.beginning.prompt, job.sequences)

    @classmethod
    def again(cls, job: Job, sequence: Continuation) -> Turn:
        return cls(job, sequence.ids().copy(), [sequence])

    @property
    def is_first(self) -> bool:
        """Whether it reads the job's prompt alone."""
        return self.tokens is self.job.beginning.prompt

    @property
    def rows(self) -> int:
        return len(self.sequences) or self.job.rows

    @property
    def needs_tokens(self) -> int:
        """The room that it needs to begin; beams have all of theirs set apart, as they cannot make room."""
        return len(self.sequences) * (self.job.source_tokens + len(self.tokens) + 1) or self.job.most_tokens
