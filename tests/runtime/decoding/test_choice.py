"""From scores to tokens: the best few, and draws that follow their probabilities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgellm.decoding import choice
from edgellm.errors import OptionError, ProviderError

arrays = hnp.arrays(np.float32, st.integers(1, 700), elements=st.sampled_from([-np.inf, -2.5, 0.0, 0.5, 1.0, 7.25]))


@given(arrays, st.integers(1, 12))
def test_best_indices_are_those_of_a_full_sort(values, count) -> None:
    expected = np.argsort(-values, kind="stable")[:count]
    np.testing.assert_array_equal(choice.best_indices(values, count), expected)


@given(arrays, st.integers(1, 700))
def test_kth_largest(values, k) -> None:
    k = min(k, len(values))
    expected = np.sort(values)[::-1][k - 1]
    assert choice.kth_largest(values, k) == expected
    np.testing.assert_array_equal(choice.at_least_kth(values, k), np.flatnonzero(values >= expected))


def test_nan_is_not_lost() -> None:
    values = np.linspace(0, 1, 5000, dtype=np.float32)
    values[700] = np.nan
    assert 700 in choice.at_least_kth(values, 3)


def test_logprobs_of_chosen_tokens() -> None:
    logits = np.random.default_rng(0).normal(0, 4, (3, 50)).astype(np.float32)
    tokens = np.array([4, 0, 49])
    expected = choice.log_softmax(logits)[np.arange(3), tokens]
    np.testing.assert_allclose(choice.token_logprobs(logits, tokens), expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(choice.log_softmax(logits)).sum(axis=1), 1, rtol=1e-5)


def test_the_likeliest_tokens() -> None:
    logits = np.random.default_rng(0).normal(0, 4, (3, 50)).astype(np.float32)
    expected = choice.log_softmax(logits)
    for row, found in enumerate(choice.top_logprobs(logits, 4)):
        assert [token for token, _ in found] == np.argsort(-logits[row])[:4].tolist()
        np.testing.assert_allclose([logprob for _, logprob in found], np.sort(expected[row])[::-1][:4], rtol=1e-5)


def test_samples_follow_the_probabilities() -> None:
    probabilities = np.array([0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
    with np.errstate(divide="ignore"):
        scores = np.log(probabilities).astype(np.float32)[None]
    stream = [np.random.default_rng(0)]
    counts = np.bincount([choice.sample(scores, stream)[0] for _ in range(4000)], minlength=6)
    np.testing.assert_allclose(counts / 4000, probabilities, atol=0.03)
    assert counts[1] == counts[5] == 0


@given(arrays, st.floats(0, 1, exclude_max=True))
def test_a_draw_is_where_the_cumulative_probabilities_reach_the_number(values, number) -> None:
    values = np.append(values, np.float32(0))

    class Stream:
        def random(self) -> float:
            return number

    (token,) = choice.sample(values[None], [Stream()])
    cumulative = np.cumsum(np.exp(values - values.max()), dtype=np.float64)
    assert values[token] > -np.inf
    assert cumulative[token] >= number * cumulative[-1] * (1 - 1e-12)
    assert token == 0 or cumulative[token - 1] <= number * cumulative[-1] * (1 + 1e-12)


def test_samples_without_replacement_follow_one_draw_after_another() -> None:
    probabilities = np.array([0.5, 0.3, 0.2])
    scores = np.append(np.log(probabilities), -np.inf).astype(np.float32)
    stream = np.random.default_rng(0)
    draws = [tuple(choice.sample_without_replacement(scores, 2, stream)) for _ in range(4000)]
    for first in range(3):
        for second in set(range(3)) - {first}:
            expected = probabilities[first] * probabilities[second] / (1 - probabilities[first])
            assert draws.count((first, second)) / 4000 == pytest.approx(expected, abs=0.03)
    assert sorted(choice.sample_without_replacement(scores, 9, stream)) == [0, 1, 2]


def test_streams_are_reproducible_and_different() -> None:
    first, again, other = (choice.random_stream(7, number).random(4).tolist() for number in (0, 0, 1))
    assert first == again != other
    assert choice.random_stream(None, 0).random() != choice.random_stream(None, 0).random()


@pytest.mark.parametrize("pick", [choice.greedy, lambda scores: choice.sample(scores, [np.random.default_rng(0)])])
def test_scores_that_are_nothing_to_go_by(pick) -> None:
    with pytest.raises(OptionError, match="exclude every token"):
        pick(np.full((1, 4), -np.inf, dtype=np.float32))
    with pytest.raises(ProviderError, match="NaN"):
        pick(np.array([[0.0, np.nan, 1.0]], dtype=np.float32))
