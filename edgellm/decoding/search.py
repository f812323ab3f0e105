"""The loop of one call: the sequences and beams that began together, side by side in one batch, and a step of these."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np

from edgellm.decoding.beam_search import BeamSearch
from edgellm.decoding.chain import ScoredRows, process
from edgellm.decoding.choice import greedy, sample, token_logprobs, top_logprobs
from edgellm.decoding.decoder import HEADROOM, Decoder, Reading
from edgellm.decoding.sequence import Beginning, Continuation, Emitted, Hypothesis, SequencePlan, Step
from edgellm.types import Logits, ProgressHook, TokenArray

Cancelled = Callable[[], bool]


def search(
    decoder: Decoder,
    beginnings: Sequence[Beginning],
    cancelled: Cancelled | None = None,
    progress: ProgressHook | None = None,
) -> Generator[Step, None, list[list[Hypothesis]]]:
    """Continue prompts, each as its plan says; one step per run of the model.

    `cancelled` is asked once per step, and after each chunk of the prompts, of which `progress` is told.
    Returns, per prompt, `num_return_sequences` hypotheses, for beams best first (fewer only where the vocabulary, the
    options and the limits allow fewer different ones; a single empty one where reading the prompts was interrupted).
    What a prompt gets does not depend on the other prompts: sequence j of any prompt draws from the random stream
    (seed, j). Abandoning the generator between steps is safe.
    """
    if not beginnings:
        return []
    try:
        logits = _prefill(decoder, beginnings, cancelled, progress)
    except _Interrupted as interrupted:
        return [[beginning.nothing(str(interrupted))] for beginning in beginnings]
    batch = _Batch(beginnings)
    while True:
        interruption = "cancelled" if cancelled is not None and cancelled() else None
        yield batch.step(logits, interruption)
        tokens = batch.go_on(decoder)
        if not tokens:
            return batch.hypotheses()
        logits = decoder.decode(np.array(tokens))


def step(sequences: Sequence[Continuation], logits: Logits, interruption: str | None = None) -> tuple[Emitted, ...]:
    """Add a token to each of the sequences, greedy beside sampled, and end those that are done.

    logits: [sequences or more, vocab], not written to. interruption: why all sequences have to end now.
    Neighbours that share a plan are computed together; what a sequence gets does not depend on the others.
    """
    emitted: list[Emitted] = []
    start, count = 0, len(sequences)
    while start < count:
        plan, stop = sequences[start].plan, start + 1
        while stop < count and sequences[stop].plan is plan:
            stop += 1
        emitted += _advance(plan, sequences[start:stop], logits[start:stop], interruption)
        start = stop
    return tuple(emitted)


class _Batch:
    """What a call's prompts have become. Rows of the decoder: those of sequences, in order, and behind them those of
    each prompt with beams."""

    def __init__(self, beginnings: Sequence[Beginning]) -> None:
        self._beginnings = beginnings
        self._sequences = self._all_sequences = _sequences(beginnings)
        with_beams = [beginning for beginning in beginnings if beginning.plan.has_beams]
        self._searches = self._all_searches = [
            BeamSearch(beginning, row) for row, beginning in enumerate(with_beams, len(self._sequences))
        ]
        self._rows = len(self._sequences) + len(with_beams)

    def step(self, logits: Logits, interruption: str | None) -> Step:
        """Advance all of it by a token. logits: [rows, vocab]."""
        emitted = step(self._sequences, logits, interruption)
        for search in self._searches:
            search.step(logits, interruption)
        return Step(emitted)

    def go_on(self, decoder: Decoder) -> list[int]:
        """Let the decoder's rows follow what is not finished. Returns the last token of each new row."""
        rows = [row for row, sequence in enumerate(self._sequences) if sequence.finish_reason is None]
        if moved := len(rows) < len(self._sequences):
            self._sequences = [self._sequences[row] for row in rows]
        tokens = [sequence.tokens[-1] for sequence in self._sequences]
        if self._searches:
            self._searches = [search for search in self._searches if not search.done]
            for search in self._searches:
                tokens += search.next_tokens()
                rows += search.move_to(len(rows))
            moved = rows != list(range(self._rows))
        if rows and moved:
            decoder.reorder(np.array(rows))
        self._rows = len(rows)
        return tokens

    def hypotheses(self) -> list[list[Hypothesis]]:
        """What each of the prompts got."""
        sequences, searches = iter(self._all_sequences), iter(self._all_searches)
        return [
            next(searches).hypotheses()
            if beginning.plan.has_beams
            else [next(sequences).hypothesis() for _ in range(beginning.plan.num_sequences)]
            for beginning in self._beginnings
        ]


class _Interrupted(Exception):
    """Ends a prefill."""


def _prefill(
    decoder: Decoder, beginnings: Sequence[Beginning], cancelled: Cancelled | None, progress: ProgressHook | None
) -> Logits:
    """Read each prompt once, however many sequences continue it. Returns logits [rows, vocab] of the rows that a
    `_Batch` begins with: one for each prompt with beams."""

    def on_chunk(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total)
        if done < total and cancelled is not None and cancelled():
            raise _Interrupted("cancelled")
        if done < total and all(beginning.plan.ends.of_time() for beginning in beginnings):
            raise _Interrupted("time")

    prompts = [beginning.prompt for beginning in beginnings]
    sources = [beginning.source for beginning in beginnings if beginning.source is not None]
    headroom = min(HEADROOM, max(beginning.max_new_tokens for beginning in beginnings))
    logits = decoder.prefill(prompts, sources or None, Reading(headroom, on_chunk))
    for beginning in beginnings:
        beginning.plan.options.check_vocabulary(logits.shape[1])
    parents = [index for index, beginning in enumerate(beginnings) for _ in range(beginning.plan.num_sequences)]
    parents += [index for index, beginning in enumerate(beginnings) if beginning.plan.has_beams]
    if parents == list(range(len(beginnings))):
        return logits
    decoder.reorder(np.array(parents))
    return logits[parents]


def _sequences(beginnings: Sequence[Beginning]) -> list[Continuation]:
    """The sequences that have a row each, numbered as all sequences that the call will return."""
    sequences, number = [], 0
    for beginning in beginnings:
        sequences += [beginning.sequence(number + copy, copy) for copy in range(beginning.plan.num_sequences)]
        number += beginning.plan.options.num_return_sequences
    return sequences


def _advance(
    plan: SequencePlan, sequences: Sequence[Continuation], logits: Logits, interruption: str | None
) -> list[Emitted]:
    """`step` for sequences with one plan. logits: [sequences, vocab]."""
    tokens = _choose(plan, sequences, logits)
    logprobs = token_logprobs(logits, tokens) if plan.options.logprobs else [None] * len(sequences)
    likeliest = plan.options.top_logprobs
    tops = top_logprobs(logits, likeliest) if likeliest else [()] * len(sequences)
    cut = interruption or plan.ends.of_time()
    return [
        sequence.append(token, logprob, cut, top)
        for sequence, token, logprob, top in zip(sequences, tokens.tolist(), logprobs, tops, strict=True)
    ]


def _choose(plan: SequencePlan, sequences: Sequence[Continuation], logits: Logits) -> TokenArray:
    """The next token of each sequence. logits: [sequences, vocab]."""
    scores = process(plan.processors, _describe(sequences), logits) if plan.processors else logits
    if not plan.options.do_sample:
        return greedy(scores)
    return sample(scores, [sequence.stream for sequence in sequences if sequence.stream is not None])


def _describe(sequences: Sequence[Continuation]) -> ScoredRows:
    return ScoredRows(
        ids=[sequence.ids() for sequence in sequences],
        prompt_lens=[sequence.prompt_len for sequence in sequences],
        max_new_tokens=[sequence.max_new_tokens for sequence in sequences],
        sources=[sequence.beginning.made_of for sequence in sequences],
        states=[sequence.state for sequence in sequences],
    )
