"""What a sequence begins with, how it goes on and ends, and what a search tells of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from edgellm.decoding.chain import Processor, build_processors
from edgellm.decoding.choice import random_stream
from edgellm.decoding.constraint import Constraint, ConstraintState
from edgellm.decoding.options import GenerationOptions
from edgellm.types import TokenArray

SPARE = 256  # tokens to make room for at first
STUCK = "constraint"  # the finish reason of a text that its constraint lets neither end nor go on


class Emitted(NamedTuple):
    """One new token of one sequence (greedy search and sampling; beams are not final before the end).

    `number` is the sequence's: the call's prompts have their `num_return_sequences` one after the other.
    `logprob` is the log-softmax of the model's own logits at the token, if `options.logprobs`; `top_logprobs` are those
    of the `options.top_logprobs` likeliest tokens, the likeliest first.
    `finish_reason` is set on a sequence's last token: "eos", "stop_string", "length", "cancelled", "time" or
    "constraint".
    `complete`: on the last token of a constrained sequence, whether its text is what the constraint asks for.
    """

    number: int
    token: int
    logprob: float | None
    finish_reason: str | None
    complete: bool | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()


class Step(NamedTuple):
    """One run of the model. `emitted` is empty for beam search."""

    emitted: tuple[Emitted, ...]


@dataclass(frozen=True)
class Hypothesis:
    """One finished sequence: its new tokens, an end token included, the prompt not.

    `logprobs` and `complete` are as in `Emitted`. `score`: beam search's length-penalised score,
    sum / length**length_penalty.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    score: float | None
    finish_reason: str
    complete: bool | None = None


@dataclass(frozen=True)
class Ends:
    """What ends a sequence, beside its number of tokens: the conditions that the tokenizer and the clock decide.

    `matches_stop_string`: whether a stop string reaches into the last token of a sequence, prompt included.
    `matches_stop`: the same of the new tokens alone.
    `deadline` is a `time.monotonic()` value. `pad_token_id` is what a finished group of beams goes on with.
    """

    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None
    matches_stop_string: Callable[[TokenArray], bool] | None = None
    matches_stop: Callable[[TokenArray], bool] | None = None
    deadline: float | None = None

    def of_text(self, ids: TokenArray, prompt_len: int) -> str | None:
        """Why prompt and new tokens are complete in themselves: "eos", "stop_string" or None."""
        if ids[-1] in self.eos_token_ids:
            return "eos"
        if self.matches_stop_string is not None and self.matches_stop_string(ids):
            return "stop_string"
        if self.matches_stop is not None and self.matches_stop(ids[prompt_len:]):
            return "stop_string"
        return None

    def of_time(self) -> str | None:
        """Why the sequence must end now: "time" once the deadline has passed, else None."""
        return "time" if self.deadline is not None and time.monotonic() >= self.deadline else None


@dataclass(frozen=True, eq=False)
class SequencePlan:
    """How sequences go on, and when they end. What shares a plan is computed together. `constraint`: what they may say;
    None: anything."""

    options: GenerationOptions
    ends: Ends
    processors: Sequence[Processor]
    constraint: Constraint | None = None

    @classmethod
    def create(
        cls, options: GenerationOptions, ends: Ends, constraint: Constraint | None = None, *,
        before_sampling: Sequence[Processor] = (), at_the_end: Sequence[Processor] = (),
    ) -> SequencePlan:  # fmt: skip
        """`before_sampling`, `at_the_end`: processors of a task's own, beside those that the options ask for."""
        constrained = constraint is not None
        processors = build_processors(
            options, ends.eos_token_ids, constrained=constrained, before_sampling=before_sampling
        )
        return cls(options, ends, [*processors, *at_the_end], constraint)

    @property
    def has_beams(self) -> bool:
        return self.options.num_beams > 1

    @property
    def num_sequences(self) -> int:
        """How many sequences of a row each continue a prompt: none where beams do."""
        return 0 if self.has_beams else self.options.num_return_sequences

    @property
    def looks_up(self) -> bool:
        """Whether tokens are looked up: see `edgellm.decoding.prompt_lookup`. Those of beams are not."""
        return self.options.prompt_lookup and not self.has_beams

    @property
    def drafts(self) -> bool:
        """Whether tokens are read before they are chosen: those that are looked up, and those that a constraint
        forces."""
        return self.looks_up or (self.constraint is not None and not self.has_beams)

    def begin(self) -> ConstraintState | None:
        """The state of a new sequence, None where it may say anything."""
        return None if self.constraint is None else self.constraint.begin()

    def advance(self, state: ConstraintState | None, ids: TokenArray | Sequence[int]) -> None:
        """Let a state follow the last token of prompt and new tokens. Ends, and a first token that the options force,
        are no part of what it is about."""
        token = int(ids[-1])
        apart = token in self.ends.eos_token_ids or self.options.forces_token_behind(len(ids) - 1)
        if state is not None and not apart:
            state.advance(token)

    def end_of_text(self, state: ConstraintState | None, ids: TokenArray, prompt_len: int) -> str | None:
        """Why prompt and new tokens are not gone on with: what `Ends` says, or a constraint that lets nothing follow,
        which has come to its "eos", if there is no end token, or is stuck."""
        end = self.ends.of_text(ids, prompt_len)
        if end is not None or state is None or state.may_go_on:
            return end
        if not state.may_end:
            return STUCK
        return None if self.ends.eos_token_ids else "eos"


@dataclass(frozen=True, eq=False)
class Beginning:
    """A prompt [length] and how to go on from it: by as many sequences or beams as the plan's options say.

    `max_new_tokens`: at least 1 (see `GenerationOptions.limit`). `source`: the text that an encoder reads; None where
    the prompt is all there is.
    """

    prompt: TokenArray
    plan: SequencePlan
    max_new_tokens: int
    source: TokenArray | None = None

    @property
    def made_of(self) -> TokenArray:
        """What the sequences are about, for the options that look at it."""
        return self.prompt if self.source is None else self.source

    @property
    def drafts(self) -> bool:
        """Whether tokens are read before they are chosen: an encoder-decoder cannot take them back."""
        return self.plan.drafts and self.source is None

    def sequence(self, number: int, copy: int = 0) -> Continuation:
        """The sequence `copy` of this prompt, which draws from the random stream (seed, copy)."""
        options = self.plan.options
        return Continuation(number, self, random_stream(options.seed, copy) if options.do_sample else None)

    def nothing(self, finish_reason: str) -> Hypothesis:
        """What there is where the prompt was not read to its end."""
        complete = None if self.plan.constraint is None else False
        return Hypothesis((), () if self.plan.options.logprobs else None, None, finish_reason, complete)


@dataclass(eq=False)
class Continuation:
    """One sequence in the making, which has a row of a decoder to itself. `number` is the one in its events.

    `stream`: the random numbers that it draws with; None: it takes the best token.
    """

    number: int
    beginning: Beginning
    stream: np.random.Generator | None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None

    def __post_init__(self) -> None:
        self.plan, self.max_new_tokens = self.beginning.plan, self.beginning.max_new_tokens
        self.prompt_len = len(self.beginning.prompt)
        self.state = self.plan.begin()
        self._ids = np.concatenate([self.beginning.prompt, np.zeros(min(self.max_new_tokens, SPARE), np.int64)])

    def append(
        self, token: int, logprob: float | None, cut: str | None, top_logprobs: tuple[tuple[int, float], ...] = ()
    ) -> Emitted:
        """`cut`: why the sequence ends with this token if nothing else ends it."""
        length = self.prompt_len + len(self.tokens)
        if length == len(self._ids):  # without a limit, as where a context shifts, memory follows the tokens
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
        self._ids[length] = token
        self.tokens.append(token)
        if logprob is not None:
            self.logprobs.append(logprob)
        limit = "length" if len(self.tokens) >= self.max_new_tokens else None
        self.plan.advance(self.state, self.ids())
        self.finish_reason = self.plan.end_of_text(self.state, self.ids(), self.prompt_len) or limit or cut
        return Emitted(self.number, token, logprob, self.finish_reason, self.complete, top_logprobs)

    @property
    def complete(self) -> bool | None:
        """Whether the text is what its constraint asks for, once it has ended; None where there is none."""
        return None if self.state is None or self.finish_reason is None else self.state.may_end

    def ids(self) -> TokenArray:
        """Prompt and new tokens."""
        return self._ids[: self.prompt_len + len(self.tokens)]

    def hypothesis(self) -> Hypothesis:
        assert self.finish_reason is not None
        logprobs = tuple(self.logprobs) if self.plan.options.logprobs else None
        return Hypothesis(tuple(self.tokens), logprobs, None, self.finish_reason, self.complete)
