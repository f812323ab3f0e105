"""Times one run of a case through the public API, `stream` for one row, `generate` for several, and how much of it is
ONNX Runtime's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from edgellm.bench.cases import Case
from edgellm.bench.energy import Meter
from edgellm.bench.results import Repeat
from edgellm.models.decoder import Model
from edgellm.ort.binding import Binding


def random_prompts(model: Model, case: Case) -> list[list[int]]:
    """[batch_size][prompt_length] ordinary tokens: the time does not depend on which they are."""
    tokenizer, tokens = model.tokenizer, range(model.info.vocab_size)
    ordinary = [token for token in tokens if tokenizer is None or tokenizer.has_text(token)]
    prompts: list[list[int]] = np.random.default_rng(0).choice(ordinary, (case.batch_size, case.prompt_length)).tolist()
    return prompts


def time_run(
    model: Model, case: Case, prompts: list[list[int]], meter: Meter | None = None, inside: Inside | None = None
) -> Repeat:
    """One run of which nothing is cached. End tokens do not end it, so that every run has the same length."""
    options: dict[str, Any] = {"max_new_tokens": case.generated, "do_sample": False, "eos_token_id": []}
    model.reset()
    marks = Marks(meter, inside)
    if case.rows == 1:
        for _ in model.stream(prompts[0], **options):
            marks.token()
    else:
        model.generate(prompts, num_beams=case.beams, cancel=marks, progress=marks.progress, **options)
    return marks.repeat(case.generated)


class Marks:
    """The moments at which each token was there.

    For `generate` it is a `cancel` that is never set: it is asked once per token, after the token was chosen, and
    between the chunks of a prompt, which do not count.
    """

    def __init__(self, meter: Meter | None, inside: Inside | None) -> None:
        self._meter = meter
        self._inside = inside
        self._prefilled = False
        self._joules: list[float | None] = [self._read_meter()]
        self._inside_before_decoding = 0.0
        self._first_token_s = 0.0
        self._times: list[float] = []
        self._start = time.perf_counter()

    def progress(self, done: int, total: int) -> None:
        self._prefilled = done == total

    def is_set(self) -> bool:
        if self._prefilled:
            self.token()
        return False

    def token(self) -> None:
        if self._times:
            self._times.append(time.perf_counter())
            return
        self._first_token_s = time.perf_counter() - self._start
        self._joules.append(self._read_meter())
        self._inside_before_decoding = self._inside.seconds if self._inside else 0.0
        self._times.append(time.perf_counter())  # anew: reading the meter is nobody's time

    def repeat(self, tokens: int) -> Repeat:
        """Call it when the run has ended; `tokens` is how many were asked for."""
        inside = None if self._inside is None else self._inside.seconds - self._inside_before_decoding
        before, between, after = *self._joules, self._read_meter()
        assert len(self._times) == tokens, f"{len(self._times)} moments for {tokens} tokens"
        return Repeat(
            first_token_s=self._first_token_s,
            steps_s=tuple(later - earlier for earlier, later in pairwise(self._times)),
            prefill_joules=_difference(before, between),
            decode_joules=_difference(between, after),
            onnxruntime_s=inside,
        )

    def _read_meter(self) -> float | None:
        return None if self._meter is None else self._meter.joules()


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


class Inside:
    """Seconds spent inside ONNX Runtime so far."""

    def __init__(self) -> None:
        self.seconds = 0.0


@contextmanager
def timed_graph_runs() -> Iterator[Inside]:
    """Times every run of every graph in this process, each at the cost of two readings of the clock."""
    inside, run = Inside(), Binding.run

    def timed(binding: Binding) -> None:
        start = time.perf_counter()
        run(binding)
        inside.seconds += time.perf_counter() - start

    Binding.run = timed  # type: ignore[method-assign, assignment]
    try:
        yield inside
    finally:
        Binding.run = run  # type: ignore[method-assign]
