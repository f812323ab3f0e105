"""One step of sequences that have a row each: greedy beside sampled, each with a plan of its own."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.decoding.chain import ScoredRows, process
from edgellm.decoding.choice import greedy, sample, token_logprobs
from edgellm.decoding.events import Emitted
from edgellm.decoding.sequence import Continuation, SequencePlan
from edgellm.types import Logits, TokenArray


def step(sequences: Sequence[Continuation], logits: Logits, interruption: str | None = None) -> tuple[Emitted, ...]:
    """Add a token to each of the sequences, and end those that are done.

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


def _advance(
    plan: SequencePlan, sequences: Sequence[Continuation], logits: Logits, interruption: str | None
) -> list[Emitted]:
    """`step` for sequences with one plan. logits: [sequences, vocab]."""
    tokens = _choose(plan, sequences, logits)
    logprobs = token_logprobs(logits, tokens) if plan.options.logprobs else [None] * len(sequences)
    cut = interruption or plan.ends.of_time()
    return [
        sequence.append(token, logprob, cut)
        for sequence, token, logprob in zip(sequences, tokens.tolist(), logprobs, strict=True)
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
    )
