"""Sequences with options of their own, side by side: each gets what it gets alone."""

from __future__ import annotations

import time
from typing import Never

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.decoding import Beginning, Emitted, Ends, PromptLookup, search, step
from reference_models import CountingDecoder, FullDecoder, ReadingDecoder, beginnings, finish, table_model

PLANS = [
    {},
    {"max_new_tokens": 2},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_length": 6, "logprobs": True},
    {"do_sample": True, "seed": 3, "num_return_sequences": 2, "top_p": 0.9, "logprobs": True},
    {"do_sample": True, "seed": 4, "temperature": 0.5, "encoder_repetition_penalty": 1.3},
    {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5},
    {"num_beams": 2, "do_sample": True, "seed": 3},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.7, "num_return_sequences": 4},
    {"stop_at": 7},
]


def own(prompt, options) -> list[Beginning]:
    """A prompt with a plan of its own. `stop_at`: as if a stop string came with this token."""
    options = {"max_length": 14, **options}
    stop = options.pop("stop_at", None)
    matches = None if stop is None else lambda tokens: tokens[-1] == stop
    return beginnings([prompt], Ends((3,), matches_stop_string=matches), **options)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 39), min_size=1, max_size=6), st.sampled_from(PLANS)), min_size=2, max_size=5
    )
)
def test_each_prompt_gets_what_it_gets_alone(asked) -> None:
    model = table_model(eos_bias=[(3, 3)])
    began = [own(prompt, options)[0] for prompt, options in asked]
    _, together = finish(search(FullDecoder(model), began))
    alone = [finish(search(FullDecoder(model), own(*one)))[1][0] for one in asked]
    assert together == alone


def test_sequences_are_numbered_as_the_call_returns_them() -> None:
    began = [*own([1], {}), *own([2], {"num_beams": 2, "num_return_sequences": 2}), *own([4], {})]
    steps, _ = finish(search(CountingDecoder(), began))
    assert [emitted.number for emitted in steps[0].emitted] == [0, 3]


def test_beams_lie_behind_the_sequences() -> None:
    decoder = FullDecoder(table_model(eos_bias=[(3, -9)]))
    began = [*own([1, 2], {"num_beams": 3}), *own([5], {"max_new_tokens": 2}), *own([6], {"max_new_tokens": 3})]
    finish(search(decoder, began))
    assert decoder.calls[:4] == [("prefill", 3), ("reorder", 3), ("reorder", 5), ("decode", 5)]
    assert [rows for verb, rows in decoder.calls if verb == "decode"][:3] == [5, 4, 3]


def test_a_deadline_is_a_sequences_own() -> None:
    began = [*own([0], {}), *beginnings([[0]], Ends(deadline=time.monotonic()), [9])]
    _, result = finish(search(CountingDecoder(), began))
    assert [found[0].finish_reason for found in result] == ["eos", "time"]


def test_drafts_are_for_the_rows_that_ask_for_them() -> None:
    model = table_model(2, sharpness=3)
    model.table[2:] = 0
    without = [*own([5, 6], {}), *own([1, 2, 3], {"max_length": 60})]
    looking_up = [without[0], *own([1, 2, 3], {"max_length": 60, "prompt_lookup": True})]
    for began, drafts in ((looking_up, True), (looking_up[::-1], True), (without, False)):
        front = PromptLookup(ReadingDecoder(model), began)
        assert finish(search(front, began)) == finish(search(FullDecoder(model), began))
        assert (front.drafted > 0) == drafts


def test_sequences_come_and_go() -> None:
    """As a scheduler drives them: each joins at a time of its own and leaves when it is done."""
    model = table_model(eos_bias=[(3, 2)])
    asked = [([1, 2], PLANS[0]), ([4], PLANS[4]), ([5, 6, 7], PLANS[2]), ([8], PLANS[8])]
    waiting = [own(*one)[0].sequence(number) for number, one in enumerate(asked)]
    everyone, running, decoder = list(waiting), [], FullDecoder(model)
    while waiting or running:
        if waiting:
            running.append(waiting.pop(0))
        decoder.rows = [sequence.ids().tolist() for sequence in running]
        emitted = step(running, decoder._logits())
        assert [e.number for e in emitted] == [sequence.number for sequence in running]
        running = [sequence for sequence in running if sequence.finish_reason is None]
    alone = [finish(search(FullDecoder(model), own(*one)))[1][0] for one in asked]
    assert [[sequence.hypothesis()] for sequence in everyone] == alone


def test_neighbours_with_one_plan_are_computed_together() -> None:
    seen = []

    class Seen(np.ndarray):
        def argmax(self, *args, **kwargs) -> np.ndarray:
            seen.append(len(self))
            return np.asarray(self).argmax(*args, **kwargs)

    first, second = (beginnings([[1], [2]], Ends(), [3, 3]) for _ in range(2))
    sequences = [beginning.sequence(number) for number, beginning in enumerate([*first, *second])]
    emitted = step(sequences, np.eye(4, 10, dtype=np.float32).view(Seen))
    assert seen == [2, 2]
    assert emitted == tuple(Emitted(number, number, None, None) for number in range(4))


def test_a_step_cut_short_ends_all() -> None:
    (beginning,) = own([1], {})
    sequence = beginning.sequence(0)
    assert step([sequence], np.ones((1, 40), np.float32), "cancelled") == (Emitted(0, 0, None, "cancelled"),)
    assert sequence.hypothesis().finish_reason == "cancelled"


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}], ids=str)
def test_what_is_interrupted_while_it_reads(options) -> None:
    class Reading(CountingDecoder):
        def prefill(self, prompts, sources=None, reading=None) -> Never:
            reading.progress(1, 2)
            raise AssertionError("it goes on reading")

    late, logprobs = Ends(deadline=time.monotonic()), {"logprobs": True}
    began = [*beginnings([[1]], late, **options), *beginnings([[1]], late, **logprobs)]
    steps, result = finish(search(Reading(), began))
    assert steps == []
    assert [(found.tokens, found.logprobs, found.finish_reason) for (found,) in result] == [
        ((), None, "time"),
        ((), (), "time"),
    ]
    _, result = finish(search(Reading(), began, cancelled=lambda: True))
    assert [found.finish_reason for (found,) in result] == ["cancelled", "cancelled"]
