"""The loop of one call: the sequences and beams that began together, side by side in one batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np

from edgellm.decoding.beam_search import BeamSearch
from edgellm.decoding.decoder import HEADROOM, Decoder
from edgellm.decoding.events import Hypothesis, Step
from edgellm.decoding.sequence import Beginning, Continuation
from edgellm.decoding.step import step
from edgellm.types import Logits, ProgressHook

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
    sequences = began = _sequences(beginnings)
    searches = searched = _searches(beginnings, first_row=len(sequences))
    while True:
        interruption = "cancelled" if cancelled is not None and cancelled() else None
        emitted = step(sequences, logits, interruption)
        for beams in searches:
            beams.step(logits, interruption)
        yield Step(emitted)
        rows = [row for row, sequence in enumerate(sequences) if sequence.finish_reason is None]
        if len(rows) < len(sequences):
            sequences = [sequences[row] for row in rows]
        tokens = [sequence.tokens[-1] for sequence in sequences]
        if searches:
            searches = [beams for beams in searches if not beams.done]
        for beams in searches:
            tokens += beams.next_tokens()
            rows += beams.move_to(len(rows))
        if not rows:
            return _hypotheses(beginnings, began, searched)
        if len(rows) != len(logits) or (searches and rows != list(range(len(rows)))):
            decoder.reorder(np.array(rows))
        logits = decoder.decode(np.array(tokens))


class _Interrupted(Exception):
    """Ends a prefill."""


def _prefill(
    decoder: Decoder, beginnings: Sequence[Beginning], cancelled: Cancelled | None, progress: ProgressHook | None
) -> Logits:
    """Read each prompt once, however many sequences continue it. Returns logits [rows, vocab] of the search's first
    rows: those of sequences, in order, and then one for each prompt with beams."""

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
    logits = decoder.prefill(prompts, sources or None, headroom=headroom, progress=on_chunk)
    for beginning in beginnings:
        beginning.plan.options.check_vocabulary(logits.shape[1])
    parents = [index for index, beginning in enumerate(beginnings) for _ in range(beginning.plan.num_sequences)]
    parents += [index for index, beginning in enumerate(beginnings) if beginning.plan.has_beams]
    if parents == list(range(len(beginnings))):
        return logits
    decoder.reorder(np.array(parents))
    return logits[parents]


def _sequences(beginnings: Sequence[Beginning]) -> list[Continuation]:
    """Those that have a row each, numbered as all sequences that the call will return."""
    sequences, number = [], 0
    for beginning in beginnings:
        sequences += [beginning.sequence(number + copy, copy) for copy in range(beginning.plan.num_sequences)]
        number += beginning.plan.options.num_return_sequences
    return sequences


def _searches(beginnings: Sequence[Beginning], first_row: int) -> list[BeamSearch]:
    with_beams = [beginning for beginning in beginnings if beginning.plan.has_beams]
    return [BeamSearch(beginning, row) for row, beginning in enumerate(with_beams, first_row)]


def _hypotheses(
    beginnings: Sequence[Beginning], sequences: Sequence[Continuation], searches: Sequence[BeamSearch]
) -> list[list[Hypothesis]]:
    """What each of the prompts got."""
    own, beams = iter(sequences), iter(searches)
    return [
        next(beams).hypotheses()
        if beginning.plan.has_beams
        else [next(own).hypothesis() for _ in range(beginning.plan.num_sequences)]
        for beginning in beginnings
    ]
