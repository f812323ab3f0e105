"""What a sequence begins with, how it goes on and ends, and what a search tells of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from edgellm.decoding.chain import Processor, build_processors
from edgellm.decoding.choice import random_stream
from edgellm.decoding.options import GenerationOptions
from edgellm.types import TokenArray

SPARE = 256  # tokens to make room for at first


class Emitted(NamedTuple):
    """One new token of one sequence (greedy search and sampling; beams are not final before the end).

    `number` is the sequence's: the call's prompts have their `num_return_sequences` one after the other.
    `logprob` is the log-softmax of the model's own logits at the token, if `options.logprobs`; `top_logprobs` are those
    of the `options.top_logprobs` likeliest tokens, the likeliest first.
    `finish_reason` is set on a sequence's last token: "eos", "stop_string", "length", "cancelled" or "time".
    """

    number: int
    token: int
    logprob: float | None
    finish_reason: str | None
    top_logprobs: tuple[tuple[int, float], ...] = ()


class Step(NamedTuple):
    """One run of the model. `emitted` is empty for beam search."""

    emitted: tuple[Emitted, ...]


@dataclass(frozen=True)
class Hypothesis:
    """One finished sequence: its new tokens, an end token included, the prompt not.

    `logprobs` are as in `Emitted`. `score`: beam search's length-penalised score, sum / length**length_penalty.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    score: float | None
    finish_reason: str


@dataclass(frozen=True)
class Ends:
    """What ends a sequence, beside its number of tokens: the conditions that the tokenizer and the clock decide.

    `matches_stop_string`: whether a stop string reaches into the last token of a sequence, prompt included.
    `deadline` is a `time.monotonic()` value. `pad_token_id` is what a finished group of beams goes on with.
    """

    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None
    matches_stop_string: Callable[[TokenArray], bool] | None = None
    deadline: float | None = None

    def of_text(self, ids: TokenArray) -> str | None:
        """Why prompt and new tokens are complete in themselves: "eos", "stop_string" or None."""
        if ids[-1] in self.eos_token_ids:
            return "eos"
        if self.matches_stop_string is not None and self.matches_stop_string(ids):
            return "stop_string"
        return None

    def of_time(self) -> str | None:
        """Why the sequence must end now: "time" once the deadline has passed, else None."""
        return "time" if self.deadline is not None and time.monotonic() >= self.deadline else None


@dataclass(frozen=True, eq=False)
class SequencePlan:
    """How sequences go on, and when they end. What shares a plan is computed together."""

    options: GenerationOptions
    ends: Ends
    processors: Sequence[Processor]

    @classmethod
    def create(cls, options: GenerationOptions, ends: Ends) -> SequencePlan:
        return cls(options, ends, build_processors(options, ends.eos_token_ids))

    @property
    def has_beams(self) -> bool:
        return self.options.num_beams > 1

    @property
    def num_sequences(self) -> int:
        """How many sequences of a row each continue a prompt: none where beams do."""
        return 0 if self.has_beams else self.options.num_return_sequences

    @property
    def looks_up(self) -> bool:
        """Whether tokens are drafted: see `edgellm.decoding.prompt_lookup`. Those of beams are not."""
        return self.options.prompt_lookup and not self.has_beams


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

    def sequence(self, number: int, copy: int = 0) -> Continuation:
        """The sequence `copy` of this prompt, which draws from the random stream (seed, copy)."""
        options = self.plan.options
        return Continuation(number, self, random_stream(options.seed, copy) if options.do_sample else None)

    def nothing(self, finish_reason: str) -> Hypothesis:
        """What there is where the prompt was not read to its end."""
        return Hypothesis((), () if self.plan.options.logprobs else None, None, finish_reason)


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
        self._ends = self.plan.ends
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
        self.finish_reason = self._ends.of_text(self.ids()) or limit or cut
        return Emitted(self.number, token, logprob, self.finish_reason, top_logprobs)

    def ids(self) -> TokenArray:
        """Prompt and new tokens."""
        return self._ids[: self.prompt_len + len(self.tokens)]

    def hypothesis(self) -> Hypothesis:
        assert self.finish_reason is not None
        logprobs = tuple(self.logprobs) if self.plan.options.logprobs else None
        return Hypothesis(tuple(self.tokens), logprobs, None, self.finish_reason)
