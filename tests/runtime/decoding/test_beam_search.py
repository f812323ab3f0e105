"""Beam search against transformers 4.57, token for token and score for score, and what it asks of a decoder."""

import random
import time

import numpy as np
import pytest

from edgellm.decoding import Ends, Step, search
from reference_models import (
    Ended,
    FullDecoder,
    beginnings,
    finish,
    reference_group_beam_search,
    run,
    table_model,
    transformers_generate,
)

LENGTH_PENALTIES = (-1.0, 0.0, 0.5, 1.0, 2.0)
EARLY_STOPPING = (True, False, "never")


def assert_same(found, expected, scores) -> None:
    assert [hypothesis.tokens for hypothesis in found] == expected
    np.testing.assert_allclose([hypothesis.score for hypothesis in found], scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_beams", [2, 3, 5])
@pytest.mark.parametrize("length_penalty", LENGTH_PENALTIES)
@pytest.mark.parametrize("early_stopping", EARLY_STOPPING)
def test_tokens_and_scores_of_transformers(num_beams, length_penalty, early_stopping) -> None:
    """Many small models; the end tokens are likely, so that what ends a search early really happens."""
    rng = random.Random(f"{num_beams} {length_penalty} {early_stopping}")
    stopped_early = 0
    for _ in range(20):
        eos = rng.choice([(), (3,), (3,), (3, 5), (3, 5, 7)])
        bias = [(token, rng.choice([0, 2, 4])) for token in eos]
        model = table_model(rng.randrange(10**6), sharpness=rng.choice([0.5, 1.5]), eos_bias=bias)
        prompt = [rng.randrange(40) for _ in range(rng.randint(1, 5))]
        options = {
            "num_beams": num_beams,
            "num_return_sequences": rng.randint(1, num_beams),
            "length_penalty": length_penalty,
            "early_stopping": early_stopping,
            "max_new_tokens": rng.choice([4, 14]),
            "no_repeat_ngram_size": rng.choice([0, 0, 2]),
            "repetition_penalty": rng.choice([1.0, 1.0, 1.3]),
            "min_new_tokens": rng.choice([None, None, 3]),
        }
        expected, scores = transformers_generate(model, prompt, eos=eos, **options)
        found = run(model, [prompt], eos=eos, **options)[1][0]
        assert_same(found, expected, scores)
        stopped_early += all(hypothesis.finish_reason == "eos" for hypothesis in found)
    assert stopped_early


@pytest.mark.parametrize("options", [{"max_length": 9}, {"max_new_tokens": 1}, {"forced_eos_token_id": 5}], ids=str)
def test_the_limit(options) -> None:
    for seed in range(8):
        model = table_model(seed, eos_bias=[(3, 2)])
        options = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 6, **options}
        if "max_length" in options:
            del options["max_new_tokens"]
        expected, scores = transformers_generate(model, [1, 2, 3], eos=(3, 5), **options)
        assert_same(run(model, [[1, 2, 3]], eos=(3, 5), **options)[1][0], expected, scores)


@pytest.mark.parametrize("groups", [(2, 2), (4, 2), (6, 3)])
@pytest.mark.parametrize("early_stopping", EARLY_STOPPING)
def test_groups_have_the_tokens_and_scores_of_transformers(groups, early_stopping) -> None:
    rng = random.Random(f"{groups} {early_stopping}")
    for _ in range(25):
        eos = rng.choice([(3,), (3,), (3, 5)])
        bias = [(token, rng.choice([0, 2, 4])) for token in eos]
        model = table_model(rng.randrange(10**6), sharpness=rng.choice([0.5, 1.5]), eos_bias=bias)
        prompt = [rng.randrange(40) for _ in range(rng.randint(1, 4))]
        options = {
            "num_beams": groups[0],
            "num_beam_groups": groups[1],
            "num_return_sequences": rng.randint(1, groups[0]),
            "diversity_penalty": rng.choice([0.1, 0.7, 3.0]),
            "length_penalty": rng.choice(LENGTH_PENALTIES),
            "early_stopping": early_stopping,
            "max_new_tokens": rng.choice([1, 5, 12]),
            "repetition_penalty": rng.choice([1.0, 1.3]),
        }
        expected, scores = reference_group_beam_search(model, prompt, eos, 0, options)
        found = run(model, [prompt], eos=eos, pad=0, **options)[1][0]
        # transformers writes the first of several end tokens whichever it was; we keep the one that was found.
        tokens = [tuple(eos[0] if token in eos else token for token in h.tokens) for h in found]
        assert tokens == expected
        np.testing.assert_allclose([h.score for h in found], scores, rtol=1e-5, atol=1e-5)


def search_table(prompts, decoder=None, ends=None, cancelled=None, limit=8, **options) -> Ended:
    decoder = decoder or FullDecoder(table_model(eos_bias=[(3, 2)]))
    began = beginnings(prompts, Ends((3,), **(ends or {})), [limit] * len(prompts), **options)
    return finish(search(decoder, began, cancelled))


def test_a_step_per_run_of_the_model_and_no_tokens_before_the_end() -> None:
    decoder = FullDecoder(table_model())
    steps, result = search_table([[1, 2]], decoder, num_beams=3)
    assert steps == [Step(())] * sum(verb != "reorder" for verb, _ in decoder.calls)
    assert decoder.calls[:3] == [("prefill", 1), ("reorder", 3), ("decode", 3)]
    assert len(result) == 1
    assert len(result[0]) == 1


def test_beams_of_finished_prompts_leave_the_batch() -> None:
    decoder = FullDecoder(table_model(eos_bias=[(3, 3)]))
    search_table([[1, 2], [3], [4, 5, 6]], decoder, limit=30, num_beams=2, early_stopping=True)
    rows = [count for verb, count in decoder.calls if verb == "decode"]
    assert rows[0] == 6
    assert rows[-1] == 2
    assert rows == sorted(rows, reverse=True)


def test_identity_is_not_reordered() -> None:
    """With one row per beam and parents in place there is nothing to move; FullDecoder refuses such a call."""
    decoder = FullDecoder(table_model())
    search_table([[1, 2], [5]], decoder, num_beams=2, limit=30)
    verbs = [verb for verb, _ in decoder.calls]
    assert verbs.count("reorder") < verbs.count("decode")


def test_a_stop_string_finishes_a_hypothesis() -> None:
    _, plain = search_table([[1, 2]], num_beams=3)
    stop = plain[0][0].tokens[2]
    _, result = search_table(
        [[1, 2]], ends={"matches_stop_string": lambda tokens: tokens[-1] == stop}, num_beams=3, num_return_sequences=3
    )
    assert all(h.finish_reason != "stop_string" or h.tokens.index(stop) == len(h.tokens) - 1 for h in result[0])
    assert "stop_string" in {h.finish_reason for h in result[0]}


@pytest.mark.parametrize("groups", [{}, {"num_beam_groups": 2, "diversity_penalty": 0.5}])
def test_cancellation_and_deadline_return_the_best_so_far(groups) -> None:
    answers = iter([False, False, True])
    options = {"num_beams": 4, "num_return_sequences": 4, "min_new_tokens": 9, **groups}
    steps, result = search_table([[1], [2, 3]], cancelled=lambda: next(answers), limit=30, **options)
    assert len(steps) == 3
    for hypotheses in result:
        assert [(len(h.tokens), h.finish_reason) for h in hypotheses] == [(3, "cancelled")] * 4
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
    _, result = search_table([[1]], ends={"deadline": time.monotonic()}, limit=30, **options)
    assert {h.finish_reason for h in result[0]} == {"time"}


def test_logprobs_add_up_to_the_score() -> None:
    _, result = search_table([[1, 2]], num_beams=3, num_return_sequences=3, length_penalty=0.0, logprobs=True)
    for hypothesis in result[0]:
        assert len(hypothesis.logprobs) == len(hypothesis.tokens)
        assert sum(hypothesis.logprobs) == pytest.approx(hypothesis.score, rel=1e-5)


def test_fewer_hypotheses_where_fewer_sequences_are_possible() -> None:
    _, result = search_table([[1]], num_beams=3, num_return_sequences=3, limit=1, suppress_tokens=list(range(2, 40)))
    assert sorted(hypothesis.tokens for hypothesis in result[0]) == [(0,), (1,)]


def test_an_extreme_length_penalty_is_no_crash() -> None:
    for penalty in (-300.0, 300.0):
        _, result = search_table([[1]], num_beams=2, limit=20, length_penalty=penalty)
        assert result[0][0].tokens
