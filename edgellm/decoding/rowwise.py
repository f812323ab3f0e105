"""Greedy search and sampling: each sequence goes its own way, and leaves the batch when it is done."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgellm.decoding.choice import greedy, random_stream, sample, token_logprobs
from edgellm.decoding.decoder import HEADROOM, Decoder
from edgellm.decoding.events import Emitted, Hypothesis, Step
from edgellm.decoding.options import GenerationOptions
from edgellm.decoding.pipeline import Processor, Rows, build_processors, process
from edgellm.decoding.stopping import Stopping
from edgellm.types import Logits, ProgressHook, TokenArray

SPARE = 256  # tokens to make room for at first


@dataclass
class Row:
    """One sequence in the making. `number` is its row number in the events."""

    number: int
    prompt: TokenArray
    source: TokenArray
    max_new_tokens: int
    stream: np.random.Generator | None  # None: greedy
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None

    def __post_init__(self) -> None:
        self._ids = np.concatenate([self.prompt, np.zeros(min(self.max_new_tokens, SPARE), np.int64)])

    def append(self, token: int, logprob: float | None, stopping: Stopping, interruption: str | None) -> Emitted:
        length = len(self.prompt) + len(self.tokens)
        if length == len(self._ids):  # without a limit, as where a context shifts, memory follows the tokens
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
        self._ids[length] = token
        self.tokens.append(token)
        if logprob is not None:
            self.logprobs.append(logprob)
        limit = "length" if len(self.tokens) >= self.max_new_tokens else None
        self.finish_reason = stopping.end_of_text(self.tokens) or limit or interruption
        return Emitted(self.number, token, logprob, self.finish_reason)

    def ids(self) -> TokenArray:
        """Prompt and new tokens."""
        return self._ids[: len(self.prompt) + len(self.tokens)]

    def hypothesis(self, options: GenerationOptions) -> Hypothesis:
        assert self.finish_reason is not None
        logprobs = tuple(self.logprobs) if options.logprobs else None
        return Hypothesis(tuple(self.tokens), logprobs, None, self.finish_reason)


def search_rows(
    decoder: Decoder,
    prompts: Sequence[TokenArray],
    sources: Sequence[TokenArray] | None,
    options: GenerationOptions,
    stopping: Stopping,
    progress: ProgressHook | None,
) -> Generator[Step, None, list[list[Hypothesis]]]:
    """See `edgellm.decoding.search`. Each prompt is prefilled once, however many sequences continue it."""
    processors = build_processors(options, stopping.eos_token_ids)
    copies = options.num_return_sequences
    rows = _create_rows(prompts, sources or prompts, options, stopping)
    active = rows
    headroom = min(HEADROOM, max(stopping.max_new_tokens))
    logits = decoder.prefill(prompts, sources, headroom=headroom, progress=progress)
    options.check_vocabulary(logits.shape[1])
    if copies > 1:
        parents = np.repeat(np.arange(len(prompts)), copies)
        decoder.reorder(parents)
        logits = logits[parents]
    while True:
        tokens = _choose(logits, active, processors)
        yield Step(_append(active, tokens, logits, options, stopping))
        kept = [i for i, row in enumerate(active) if row.finish_reason is None]
        if not kept:
            return [[row.hypothesis(options) for row in rows[i : i + copies]] for i in range(0, len(rows), copies)]
        if len(kept) < len(active):
            active, tokens = [active[i] for i in kept], tokens[kept]
            decoder.reorder(np.array(kept))
        logits = decoder.decode(tokens)


def _create_rows(
    prompts: Sequence[TokenArray], sources: Sequence[TokenArray], options: GenerationOptions, stopping: Stopping
) -> list[Row]:
    copies = options.num_return_sequences
    return [
        Row(
            number=index * copies + copy,
            prompt=prompt,
            source=source,
            max_new_tokens=stopping.max_new_tokens[index],
            stream=random_stream(options.seed, copy) if options.do_sample else None,
        )
        for index, (prompt, source) in enumerate(zip(prompts, sources, strict=True))
        for copy in range(copies)
    ]


def _choose(logits: Logits, active: Sequence[Row], processors: Sequence[Processor]) -> TokenArray:
    """The next token of each active row. logits: [active rows, vocab], not written to."""
    scores = process(processors, _describe(active), logits) if processors else logits
    streams = [row.stream for row in active if row.stream is not None]
    return sample(scores, streams) if streams else greedy(scores)


def _describe(active: Sequence[Row]) -> Rows:
    return Rows(
        ids=[row.ids() for row in active],
        prompt_lens=[len(row.prompt) for row in active],
        max_new_tokens=[row.max_new_tokens for row in active],
        sources=[row.source for row in active],
    )


def _append(
    active: Sequence[Row], tokens: TokenArray, logits: Logits, options: GenerationOptions, stopping: Stopping
) -> tuple[Emitted, ...]:
    """Add its token to each row, and end the rows that are done. tokens: [active rows]."""
    interruption = stopping.interruption()
    logprobs = token_logprobs(logits, tokens) if options.logprobs else [None] * len(active)
    return tuple(
        row.append(int(token), logprob, stopping, interruption)
        for row, token, logprob in zip(active, tokens, logprobs, strict=True)
    )
