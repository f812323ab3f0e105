"""All beams of one prompt: its groups, step by step, among the rows of a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgellm.decoding.beam import Beams, Group, final_score
from edgellm.decoding.choice import random_stream
from edgellm.decoding.events import Hypothesis
from edgellm.decoding.sequence import Beginning
from edgellm.types import Logits


class BeamSearch:
    """The search of one prompt. It begins with `row` of the decoder, and has one row per beam from the first step on:
    the groups' in turn, in each its beams."""

    def __init__(self, beginning: Beginning, row: int) -> None:
        self._plan = beginning.plan
        self._groups = _create_groups(beginning, row)

    @property
    def done(self) -> bool:
        return all(group.done for group in self._groups)

    def step(self, logits: Logits, interruption: str | None) -> None:
        """Let its groups step in turn, each told what the earlier ones chose. logits: [decoder rows, vocab]."""
        earlier_tokens: list[int] = []
        cut = interruption or self._plan.ends.of_time()
        for group in self._groups:
            if group.done:
                earlier_tokens += self._padding()
            else:
                group.step(logits, earlier_tokens, cut)
                earlier_tokens += group.next_tokens

    def next_tokens(self) -> list[int]:
        """The last token of each beam that goes on."""
        return [token for group in self._running() for token in group.next_tokens]

    def move_to(self, start: int) -> list[int]:
        """Take the decoder's rows from `start` on. Returns the old rows that they continue."""
        parents: list[int] = []
        for group in self._running():
            first = start + len(parents)
            parents += group.beams.rows.tolist()
            group.beams = replace(group.beams, rows=np.arange(first, start + len(parents)))
        return parents

    def hypotheses(self) -> list[Hypothesis]:
        """The best of all groups; of equal ones the later group's, as in transformers."""
        found = [hypothesis for group in reversed(self._groups) for hypothesis in group.finished]
        return sorted(found, key=final_score, reverse=True)[: self._plan.options.num_return_sequences]

    def _running(self) -> Sequence[Group]:
        return [group for group in self._groups if not group.done]

    def _padding(self) -> list[int]:
        """What a group that is done counts as having chosen, as in transformers: padding, by default the end token."""
        pad, eos = self._plan.ends.pad_token_id, self._plan.ends.eos_token_ids
        tokens = [pad] if pad is not None else list(eos[:1])
        return tokens * self._groups[0].size


def _create_groups(beginning: Beginning, row: int) -> list[Group]:
    start = Beams(
        ids=np.asarray(beginning.prompt, dtype=np.int64)[None],
        scores=np.zeros(1, dtype=np.float32),
        logprobs=np.zeros((1, 0), dtype=np.float32),
        rows=np.array([row], dtype=np.int64),
    )
    options = beginning.plan.options
    return [
        Group(
            beginning=beginning,
            diverse=options.num_beam_groups > 1,
            beams=start,
            stream=random_stream(options.seed, 0) if options.do_sample else None,
        )
        for _ in range(options.num_beam_groups)
    ]
