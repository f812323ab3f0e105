"""A scheduler whose steps a test makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import edgellm
from edgellm.generation.call import Request
from edgellm.serving import Answer
from edgellm.serving.job import Job
from edgellm.serving.prefixes import PrefixCache
from edgellm.serving.scheduler import Limits, Scheduler

FREE: dict[str, Any] = {"eos_token_id": [], "logprobs": True}


class Schedule:
    """A scheduler whose steps the test makes, and what each request got."""

    def __init__(self, model: Any, rows: int = 8, tokens: int = 100_000, prefix_bytes: int = 1 << 24) -> None:
        self.model = model
        self.scheduler = Scheduler(model.new_engine, Limits(rows, tokens), PrefixCache(prefix_bytes))
        self.answers: list[Answer] = []

    def add(self, ids: Sequence[int], **options: Any) -> Answer:
        call = self.model.read(Request([list(ids)], options))
        self.answers.append(Answer(call))
        source = call.beginnings[0].source
        held = 0 if source is None else self.model.manifest.model.source_tokens(len(source))
        self.scheduler.add(Job(call.beginnings[0], self.answers[-1], len(self.answers), held))
        return self.answers[-1]

    def run(self) -> list[edgellm.Generation]:
        while not self.scheduler.idle:
            self.scheduler.step()
        return [answer.result(0) for answer in self.answers]


def numbers(generation: edgellm.Generation) -> list[Any]:
    return [(one.tokens, one.logprobs, one.score, one.finish_reason) for one in generation.sequences]
