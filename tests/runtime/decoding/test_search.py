"""Greedy search and sampling: what ends a sequence, what is yielded when, seeds, and clear failures."""

import time
from typing import Never

import numpy as np
import pytest

from edgellm.decoding import Emitted, Ends, Hypothesis, Step, search
from edgellm.errors import OptionError, ProviderError
from reference_models import CountingDecoder, Ended, FullDecoder, beginnings, finish, run, table_model

EOS = 9


def count_from(*starts, limits, decoder=None, options=None, cancelled=None, **ends) -> Ended:
    began = beginnings([[start] for start in starts], Ends(**ends), limits, **(options or {}))
    return finish(search(decoder or CountingDecoder(), began, cancelled))


def test_rows_end_by_themselves_and_leave_the_batch() -> None:
    decoder = CountingDecoder()
    steps, result = count_from(6, 2, 8, limits=[5, 3, 5], decoder=decoder, eos_token_ids=(EOS,))
    assert result == [
        [Hypothesis((7, 8, 9), None, None, "eos")],
        [Hypothesis((3, 4, 5), None, None, "length")],
        [Hypothesis((9,), None, None, "eos")],
    ]
    assert steps[0] == Step((Emitted(0, 7, None, None), Emitted(1, 3, None, None), Emitted(2, 9, None, "eos")))
    assert steps[2] == Step((Emitted(0, 9, None, "eos"), Emitted(1, 5, None, "length")))
    assert decoder.calls == [("prefill", 3), ("reorder", [0, 1]), ("decode", 2), ("decode", 2)]


def test_an_end_token_in_the_last_place_counts_as_end() -> None:
    _, result = count_from(6, limits=[3], eos_token_ids=(EOS,))
    assert result[0][0].finish_reason == "eos"


def test_stop_strings_see_the_prompt_and_the_new_tokens_of_their_row() -> None:
    seen = []

    def ends_in_56(tokens) -> bool:
        seen.append(list(tokens))
        return list(tokens[-2:]) == [5, 6]

    _, result = count_from(3, limits=[9], matches_stop_string=ends_in_56)
    assert result == [[Hypothesis((4, 5, 6), None, None, "stop_string")]]
    assert seen == [[3, 4], [3, 4, 5], [3, 4, 5, 6]]


def test_cancellation_is_asked_once_per_step_and_keeps_what_there_is() -> None:
    answers = iter([False, False, True])
    steps, result = count_from(0, 7, limits=[9, 9], cancelled=lambda: next(answers), eos_token_ids=(EOS,))
    assert len(steps) == 3
    assert result[0] == [Hypothesis((1, 2, 3), None, None, "cancelled")]
    assert result[1] == [Hypothesis((8, 9), None, None, "eos")]


def test_deadline() -> None:
    _, result = count_from(0, limits=[9], deadline=time.monotonic())
    assert result == [[Hypothesis((1,), None, None, "time")]]
    _, result = count_from(0, limits=[3], deadline=time.monotonic() + 60)
    assert result[0][0].finish_reason == "length"


def test_nothing_runs_after_the_generator_is_closed() -> None:
    decoder = CountingDecoder()
    steps = search(decoder, beginnings([[0]], Ends(), [9]))
    assert decoder.calls == []
    next(steps)
    next(steps)
    steps.close()
    assert decoder.calls == [("prefill", 1), ("decode", 1)]


def test_no_prompts() -> None:
    decoder = CountingDecoder()
    assert finish(search(decoder, [])) == ([], [])
    assert decoder.calls == []


def test_logprobs_are_those_of_the_model_not_of_the_processors() -> None:
    options = {"logprobs": True, "suppress_tokens": [1]}
    steps, result = count_from(0, limits=[1], options=options)
    expected = -np.log(9 + np.exp(2))
    assert result[0][0].tokens == (0,)
    assert result[0][0].logprobs == (pytest.approx(expected),)
    assert steps[0].emitted[0].logprob == pytest.approx(expected)


def test_logits_are_not_written_to() -> None:
    class FrozenDecoder(CountingDecoder):
        def _logits(self) -> np.ndarray:
            logits = super()._logits()
            logits.flags.writeable = False
            return logits

    options = {
        "do_sample": True,
        "top_p": 0.9,
        "repetition_penalty": 1.1,
        "no_repeat_ngram_size": 1,
        "min_new_tokens": 2,
    }
    count_from(0, 5, limits=[4, 4], decoder=FrozenDecoder(), options=options, eos_token_ids=(EOS,))


def test_several_samples_share_one_prefill() -> None:
    decoder = CountingDecoder()
    options = {"do_sample": True, "num_return_sequences": 3, "seed": 1}
    steps, result = count_from(0, 5, limits=[4, 4], decoder=decoder, options=options)
    assert decoder.calls[:2] == [("prefill", 2), ("reorder", [0, 0, 0, 1, 1, 1])]
    assert [len(hypotheses) for hypotheses in result] == [3, 3]
    assert [emitted.number for emitted in steps[0].emitted] == [0, 1, 2, 3, 4, 5]
    for index, hypotheses in enumerate(result):
        for copy, hypothesis in enumerate(hypotheses):
            number = index * 3 + copy
            assert hypothesis.tokens == tuple(e.token for step in steps for e in step.emitted if e.number == number)


def test_seeds() -> None:
    model = table_model()
    options = {"do_sample": True, "num_return_sequences": 4, "max_new_tokens": 12}
    first, again, other, unseeded, unseeded_again = (
        run(model, [[1, 2]], seed=seed, **options)[1] for seed in (5, 5, 6, None, None)
    )
    assert first == again
    assert first != other
    assert unseeded != unseeded_again
    assert len(set(first[0])) == 4


class BrokenDecoder(CountingDecoder):
    def _logits(self) -> np.ndarray:
        logits = super()._logits()
        if self.calls[-1][0] == "decode":
            logits[-1, 4] = np.nan
        return logits


def test_a_model_that_returns_nan_when_a_beam_has_finished() -> None:
    with pytest.raises(ProviderError, match="NaN"):
        count_from(8, limits=[3], decoder=BrokenDecoder(), options={"num_beams": 2}, eos_token_ids=(EOS,))


@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_beams": 2}], ids=str)
def test_a_model_that_returns_nan(options) -> None:
    with pytest.raises(ProviderError, match="NaN"):
        count_from(0, limits=[3], decoder=BrokenDecoder(), options=options)


@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_beams": 2}], ids=str)
def test_options_that_exclude_every_token(options) -> None:
    options = {"suppress_tokens": list(range(10)), **options}
    with pytest.raises(OptionError, match="exclude every token"):
        count_from(0, limits=[3], options=options)


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}], ids=str)
def test_options_that_name_tokens_the_model_does_not_have(options) -> None:
    options = {"suppress_tokens": [10], **options}
    with pytest.raises(OptionError, match="suppress_tokens holds 10: token ids of this model are below 10"):
        count_from(0, limits=[3], options=options)


def test_greedy_search_without_processors_looks_at_the_logits_once() -> None:
    class OnceDecoder(FullDecoder):
        def prefill(self, prompts, sources=None, reading=None) -> np.ndarray:
            return super().prefill(prompts).view(OnlyArgmax)

    class OnlyArgmax(np.ndarray):
        def __array_ufunc__(self, *_, **__) -> Never:
            raise AssertionError("arithmetic on all logits")

    _, result = finish(search(OnceDecoder(table_model()), beginnings([[1]], Ends(), [1])))
    assert len(result[0][0].tokens) == 1
