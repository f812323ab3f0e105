"""Each logits processor and warper against the transformers class, on the same numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as hf

from edgellm.decoding import GenerationOptions, processors, warpers
from edgellm.decoding.chain import ScoredRows, build_processors, process

VOCAB = 37
EOS = (3, 5)

# Coarse steps make ties common; shares below are no round numbers, so that no sum lands on a threshold by chance.
values = st.one_of(
    st.floats(-30, 30, width=32), st.integers(-8, 8).map(lambda n: n / 2), st.just(-np.inf), st.just(1.5), st.just(0.0)
)
score_rows = st.lists(values, min_size=VOCAB, max_size=VOCAB).filter(lambda row: max(row) > -np.inf)
scores = st.lists(score_rows, min_size=1, max_size=3).map(lambda rows: np.array(rows, dtype=np.float32))
ids = st.lists(st.integers(0, 6), min_size=1, max_size=14).map(lambda row: np.array(row, dtype=np.int64))
batches = scores.flatmap(lambda s: st.tuples(st.lists(ids, min_size=len(s), max_size=len(s)), st.just(s)))
shares = st.sampled_from([0.0213, 0.1371, 0.3137, 0.6171, 0.9371, 0.9913])
keeps = st.integers(1, 4)

few = settings(max_examples=40, deadline=None)


def reference(processor, ids, scores) -> np.ndarray:
    """The transformers processor, row by row: rows of different lengths do not fit in one tensor."""
    rows = [
        processor(torch.from_numpy(row_ids)[None], torch.from_numpy(row)[None])
        for row_ids, row in zip(ids, scores.copy(), strict=True)
    ]
    return torch.cat(rows).numpy()


def check(found, expected, scores, before) -> None:
    """The same numbers, and an input left as it was."""
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(scores, before)


def check_filter(found, expected, scores, before) -> None:
    """The same numbers, except that of equal tokens a different one may go."""
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(expected, axis=1))
    kept = found > -np.inf
    np.testing.assert_array_equal(found[kept], scores[kept])
    np.testing.assert_array_equal(scores, before)


@few
@given(batches, ids, st.sampled_from([0.5, 1.1, 1.3, 2.0]))
def test_encoder_repetition_penalty(batch, source, penalty) -> None:
    ids, scores = batch
    processor = hf.EncoderRepetitionPenaltyLogitsProcessor(penalty, torch.from_numpy(source)[None])
    expected = reference(processor, ids, scores)
    before = scores.copy()
    found = processors.encoder_repetition_penalty([source] * len(ids), scores, penalty)
    check(found, expected, scores, before)


@few
@given(batches, st.integers(0, 9), st.sampled_from([1.0, 1.05, 1.7]))
def test_exponential_decay_length_penalty(batch, start, factor) -> None:
    ids, scores = batch
    processor = hf.ExponentialDecayLengthPenalty((start, factor), torch.tensor(EOS), 1)
    expected = np.where(np.isneginf(scores), scores, np.nan_to_num(reference(processor, ids, scores), nan=-np.inf))
    before = scores.copy()
    new = np.array([len(row) for row in ids]) - 1
    found = processors.exponential_decay_length_penalty(scores, new - start, factor, EOS)
    check(found, expected, scores, before)


def test_exponential_decay_stays_within_float32() -> None:
    """Excluded end tokens stay so, and the others' scores stay numbers, however long a text gets."""
    scores = np.array([[-np.inf, -3.0, 2.0, 0.0]], np.float32)
    found = processors.exponential_decay_length_penalty(scores, np.array([5000]), 1e30, (0, 1, 2, 3))
    largest = np.finfo(np.float32).max
    np.testing.assert_allclose(found, [[-np.inf, largest, largest, 0.0]])


@few
@given(batches, ids, st.integers(1, 4))
def test_encoder_no_repeat_ngram(batch, source, size) -> None:
    ids, scores = batch
    processor = hf.EncoderNoRepeatNGramLogitsProcessor(size, torch.from_numpy(source)[None])
    expected = reference(processor, ids, scores)
    before = scores.copy()
    found = processors.encoder_no_repeat_ngram(ids, [source] * len(ids), scores, size)
    check(found, expected, scores, before)


@few
@given(batches, st.sampled_from([0.5, 1.1, 1.3, 2.0]))
def test_repetition_penalty(batch, penalty) -> None:
    ids, scores = batch
    expected = reference(hf.RepetitionPenaltyLogitsProcessor(penalty), ids, scores)
    before = scores.copy()
    check(processors.repetition_penalty(ids, scores, penalty), expected, scores, before)


@few
@given(batches, st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-9, 9, width=32), min_size=1, max_size=4))
def test_logit_bias(batch, biases) -> None:
    ids, scores = batch
    expected = reference(hf.SequenceBiasLogitsProcessor({(i,): bias for i, bias in biases.items()}), ids, scores)
    before = scores.copy()
    check(processors.bias(scores, list(biases.items())), expected, scores, before)


@few
@given(batches, st.integers(0, 3), st.sampled_from([0.0, 0.5, -1.5]), st.sampled_from([0.0, 0.25, -2.0]))
def test_presence_and_frequency_penalties(batch, prompt_len, presence, frequency) -> None:
    """What transformers has not; the formula is in OpenAI's documentation of the two."""
    ids, scores = batch
    before, expected = scores.copy(), scores.copy()
    for row, row_ids in enumerate(ids):
        new = row_ids[prompt_len:].tolist()
        for token in set(new):
            expected[row, token] -= presence + frequency * new.count(token)
    check(
        processors.repeated_penalty(ids, [prompt_len] * len(ids), scores, presence, frequency), expected, scores, before
    )


@few
@given(batches, st.integers(1, 4))
def test_no_repeat_ngram(batch, size) -> None:
    ids, scores = batch
    expected = reference(hf.NoRepeatNGramLogitsProcessor(size), ids, scores)
    before = scores.copy()
    check(processors.no_repeat_ngram(ids, scores, size), expected, scores, before)


@few
@given(batches, st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=3), min_size=1, max_size=12))
def test_bad_words(batch, words) -> None:
    ids, scores = batch
    words.append([0])  # transformers wants at least one that is no end token
    expected = reference(hf.NoBadWordsLogitsProcessor(words, list(EOS)), ids, scores)
    options = GenerationOptions.create(bad_words_ids=words)
    before = scores.copy()
    check(run_pipeline(options, ids, scores), expected, scores, before)


@few
@given(batches, st.integers(1, 12), st.integers(1, 5))
def test_min_length_and_min_new_tokens(batch, minimum, prompt_len) -> None:
    ids, scores = batch
    before = scores.copy()
    length = reference(hf.MinLengthLogitsProcessor(minimum, list(EOS)), ids, scores)
    check(run_pipeline(GenerationOptions.create(min_length=minimum), ids, scores), length, scores, before)
    new = [hf.MinNewTokensLengthLogitsProcessor(min(prompt_len, len(row)), minimum, list(EOS)) for row in ids]
    expected = np.concatenate([reference(new[i], ids[i : i + 1], scores[i : i + 1]) for i in range(len(ids))])
    options = GenerationOptions.create(min_new_tokens=minimum)
    check(run_pipeline(options, ids, scores, prompt_len), expected, scores, before)


@few
@given(batches)
def test_forced_first_token(batch) -> None:
    ids, scores = batch
    expected = reference(hf.ForcedBOSTokenLogitsProcessor(7), ids, scores)
    before = scores.copy()
    check(run_pipeline(GenerationOptions.create(forced_bos_token_id=7), ids, scores), expected, scores, before)


@few
@given(batches, st.integers(2, 10))
def test_forced_last_token(batch, max_length) -> None:
    ids, scores = batch
    expected = reference(hf.ForcedEOSTokenLogitsProcessor(max_length, [3, 9]), ids, scores)
    rows = ScoredRows(ids, [1] * len(ids), [max_length - 1] * len(ids))
    options = GenerationOptions.create(forced_eos_token_id=[3, 9])
    before = scores.copy()
    check(process(build_processors(options, EOS), rows, scores), expected, scores, before)


@few
@given(batches)
def test_suppressed_tokens(batch) -> None:
    ids, scores = batch
    expected = reference(hf.SuppressTokensLogitsProcessor([1, 30]), ids, scores)
    before = scores.copy()
    check(run_pipeline(GenerationOptions.create(suppress_tokens=[1, 30]), ids, scores), expected, scores, before)


@pytest.mark.parametrize("forced_bos", [None, 7])
@pytest.mark.parametrize("prompt_len", [1, 3])
@pytest.mark.parametrize("new_len", [0, 1, 2])
def test_tokens_suppressed_at_the_beginning(forced_bos, prompt_len, new_len) -> None:
    begin = prompt_len if prompt_len > 1 or forced_bos is None else prompt_len + 1
    ids, scores = [np.arange(prompt_len + new_len)], np.ones((1, VOCAB), dtype=np.float32)
    chain = hf.LogitsProcessorList([hf.ForcedBOSTokenLogitsProcessor(forced_bos)] if forced_bos is not None else [])
    chain.append(hf.SuppressTokensAtBeginLogitsProcessor([1, 30], begin))
    options = GenerationOptions.create(begin_suppress_tokens=[1, 30], forced_bos_token_id=forced_bos)
    expected = reference(chain, ids, scores)
    check(run_pipeline(options, ids, scores, prompt_len), expected, scores, scores.copy())


@few
@given(scores, st.integers(1, 3), st.sampled_from([0.3, 1.2, 4.0]), st.data())
def test_hamming_diversity(scores, group, penalty, data) -> None:
    beams = len(scores)
    num_beams = 4 * beams
    chosen = data.draw(st.lists(st.integers(0, 5), min_size=num_beams, max_size=num_beams))
    theirs = hf.HammingDiversityLogitsProcessor(penalty, num_beams, 4)
    expected = theirs(None, torch.from_numpy(scores.copy()), torch.tensor(chosen), group).numpy()
    before = scores.copy()
    check(processors.hamming_diversity(scores, chosen[: group * beams], penalty), expected, scores, before)


@few
@given(scores, st.sampled_from([0.1, 0.7, 1.3, 5.0]))
def test_temperature(scores, temperature) -> None:
    expected = reference(hf.TemperatureLogitsWarper(temperature), scores, scores)
    check(warpers.temperature(scores, temperature), expected, scores, scores.copy())


@few
@given(scores, st.sampled_from([1, 2, 5, 36, 37, 50]), keeps)
def test_top_k(scores, k, keep) -> None:
    expected = reference(hf.TopKLogitsWarper(k, min_tokens_to_keep=keep), scores, scores)
    check(warpers.top_k(scores, k, keep), expected, scores, scores.copy())


WARPERS = [
    (warpers.top_p, hf.TopPLogitsWarper),
    (warpers.min_p, hf.MinPLogitsWarper),
    (warpers.typical_p, hf.TypicalLogitsWarper),
    (warpers.epsilon_cutoff, hf.EpsilonLogitsWarper),
    (warpers.eta_cutoff, hf.EtaLogitsWarper),
]


@pytest.mark.parametrize(("ours", "theirs"), WARPERS, ids=lambda f: f.__name__)
@few
@given(scores, shares, keeps)
def test_filter(ours, theirs, scores, share, keep) -> None:
    expected = reference(theirs(share, min_tokens_to_keep=keep), scores, scores)
    before = scores.copy()
    check_filter(ours(scores, share, keep), expected, scores, before)


@pytest.mark.parametrize(("ours", "theirs"), WARPERS, ids=lambda f: f.__name__)
def test_filter_on_a_large_vocabulary(ours, theirs) -> None:
    scores = np.random.default_rng(0).normal(0, 3, (2, 50_000)).astype(np.float32)
    for share in (0.0003, 0.0213, 0.9137):
        differing = ours(scores, share) != reference(theirs(share), scores, scores)
        assert differing.sum() <= 1  # two of 50,000 tokens may be closer to each other than float32 rounding


@given(score_rows, st.integers(1, VOCAB))
def test_of_equal_tokens_the_lower_ids_stay(row, count) -> None:
    row = np.array(row, dtype=np.float32)
    expected = sorted(range(VOCAB), key=lambda token: (-row[token], token))[:count]
    assert sorted(np.flatnonzero(warpers.largest(row, count))) == sorted(expected)


@few
@given(batches, st.integers(1, 5), st.sampled_from([3, 30]))
def test_everything_together_in_the_order_of_transformers(batch, beams, spread) -> None:
    ids, scores = batch
    scores = np.random.default_rng(0).normal(0, spread, scores.shape).astype(np.float32)
    keep = len(EOS) + 1 if beams > 1 else 1
    theirs = hf.LogitsProcessorList(
        [
            hf.RepetitionPenaltyLogitsProcessor(1.3),
            hf.NoRepeatNGramLogitsProcessor(2),
            hf.NoBadWordsLogitsProcessor([[1, 2], [4]], list(EOS)),
            hf.MinLengthLogitsProcessor(8, list(EOS)),
            hf.SuppressTokensLogitsProcessor([6]),
            hf.TemperatureLogitsWarper(0.7),
            hf.TopKLogitsWarper(20, min_tokens_to_keep=keep),
            hf.TopPLogitsWarper(0.8371, min_tokens_to_keep=keep),
            hf.MinPLogitsWarper(0.0213, min_tokens_to_keep=keep),
            hf.TypicalLogitsWarper(0.9371, min_tokens_to_keep=keep),
        ]
    )
    options = GenerationOptions.create(
        do_sample=True, num_beams=beams, repetition_penalty=1.3, no_repeat_ngram_size=2, bad_words_ids=[[1, 2], [4]],
        min_length=8, suppress_tokens=[6], temperature=0.7, top_k=20, top_p=0.8371, min_p=0.0213, typical_p=0.9371,
    )  # fmt: skip
    expected = reference(theirs, ids, scores)
    before = scores.copy()
    check(run_pipeline(options, ids, scores), expected, scores, before)


@few
@given(batches)
def test_a_row_does_not_depend_on_the_others(batch) -> None:
    ids, scores = batch
    options = GenerationOptions.create(
        do_sample=True, repetition_penalty=1.3, no_repeat_ngram_size=2, min_new_tokens=4, top_p=0.9, typical_p=0.9
    )
    together = run_pipeline(options, ids, scores)
    for i in range(len(ids)):
        np.testing.assert_array_equal(run_pipeline(options, ids[i : i + 1], scores[i : i + 1])[0], together[i])


def run_pipeline(options, ids, scores, prompt_len=0) -> np.ndarray:
    rows = ScoredRows(ids, [min(prompt_len, len(row)) for row in ids], [100] * len(ids))
    return process(build_processors(options, EOS), rows, scores)


@few
@given(batches)
def test_renormalize(batch) -> None:
    ids, scores = batch
    expected, before = reference(hf.LogitNormalization(), ids, scores), scores.copy()
    np.testing.assert_allclose(processors.renormalize(scores), expected, rtol=1e-5, atol=5e-6)
    np.testing.assert_array_equal(scores, before)


def test_nothing_is_left_to_renormalize() -> None:
    scores = np.full((1, VOCAB), -np.inf, np.float32)
    np.testing.assert_array_equal(processors.renormalize(scores), scores)


def test_renormalizing_comes_last() -> None:
    options = GenerationOptions(do_sample=True, top_k=4, suppress_tokens=(3,), renormalize_logits=True)
    rows = ScoredRows([np.array([1])], [1], [5])
    scores = process(build_processors(options, EOS), rows, np.linspace(0, 4, VOCAB, dtype=np.float32)[None])
    assert np.exp(scores).sum() == pytest.approx(1)
    assert np.count_nonzero(scores > -np.inf) == 4
