"""The scores of `edgellm eval` against the libraries that people quote them from, on the same predictions."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sacrebleu
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from transformers.data.metrics import squad_metrics

from edgellm.errors import MissingDependencyError
from edgellm.evaluation import answers, distributions, text_scores
from edgellm.evaluation.distributions import compared, in_step, joined
from edgellm.evaluation.label_scores import (
    Tags,
    entities_in,
    entity_scores,
    multi_label_scores,
    number_scores,
    single_label_scores,
)
from edgellm.evaluation.results import mean, share, with_intervals
from edgellm.evaluation.text_scores import exact_matches, summary_scores, translation_scores
from edgellm.evaluation.token_stream import sliding_windows, units_of

with warnings.catch_warnings():  # of their dependencies
    warnings.simplefilter("ignore")
    import seqeval.metrics as seqeval
    import sklearn.metrics as sklearn

PREDICTIONS = ["The cat sat on the mat.", "There is no such thing here", "Hello World, and so on!", ""]
TARGETS = [
    ["A cat sat on the mat.", "The cat was sitting on the mat."],
    ["There is nothing like that here", "There were no such things here"],
    ["hello world, and so on!", "Hello, world"],
    ["something", "anything"],
]
LABELS = ["a", "b", "c", "d"]
RNG = np.random.default_rng(3)


@pytest.mark.parametrize("tokenize", ["13a", "intl", "char", "none"])
@pytest.mark.parametrize("lowercase", [False, True])
def test_bleu_and_chrf_are_sacrebleus(tokenize: str, lowercase: bool) -> None:
    found = translation_scores(PREDICTIONS, TARGETS, tokenize=tokenize, lowercase=lowercase, bootstrap=0)
    streams = [list(stream) for stream in zip(*TARGETS, strict=True)]
    expected = sacrebleu.corpus_bleu(PREDICTIONS, streams, tokenize=tokenize, lowercase=lowercase)
    assert found.metrics["bleu"].value == expected.score
    assert found.details["bleu_precisions"] == expected.precisions
    assert found.metrics["bleu"].low is None
    chrf = sacrebleu.CHRF(lowercase=lowercase).corpus_score(PREDICTIONS, streams)
    assert found.metrics["chrf"].value == chrf.score


def test_the_intervals_are_sacrebleus_too() -> None:
    texts, targets = PREDICTIONS[:3], TARGETS[:3]
    found = translation_scores(texts, targets, tokenize="13a", lowercase=False, bootstrap=200)
    scorer = sacrebleu.BLEU()
    expected = scorer.corpus_score(texts, [list(s) for s in zip(*targets, strict=True)], n_bootstrap=200)
    metric = found.metrics["bleu"]
    assert (metric.low, metric.high) == (expected._mean - expected._ci, expected._mean + expected._ci)
    assert found.details["signatures"]["bleu"] == str(scorer.get_signature())
    assert "bs:200" in found.details["signatures"]["bleu"]


def test_where_sacrebleu_makes_no_interval_there_is_none() -> None:
    """It fails where some resamples score nothing and others do."""
    found = translation_scores(["a b c d", ""], [["a b c d"], ["x"]], tokenize="13a", lowercase=False, bootstrap=50)
    assert found.metrics["bleu"].value > 0
    assert found.metrics["chrf"].low is None
    assert "bs:" not in found.details["signatures"]["chrf"]


def test_sentences_may_have_different_numbers_of_targets() -> None:
    targets = [["a b c d e", "a b c d f"], ["x y z w v"]]
    found = translation_scores(["a b c d f", "x y z w u"], targets, tokenize="13a", lowercase=False, bootstrap=0)
    expected = sacrebleu.corpus_bleu(
        ["a b c d f", "x y z w u"], [["a b c d e", "x y z w v"], ["a b c d f", None]]  # type: ignore[list-item]
    )  # fmt: skip
    assert found.metrics["bleu"].value == expected.score


@pytest.mark.parametrize("stemmer", [False, True])
def test_rouge_is_rouge_scores(stemmer: bool) -> None:
    found = summary_scores(PREDICTIONS, TARGETS, stemmer=stemmer)
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = rouge_scorer.RougeScorer(names, use_stemmer=stemmer)
    scores = [scorer.score_multi(t, p) for t, p in zip(TARGETS, PREDICTIONS, strict=True)]
    for name in names:
        assert found.metrics[name].value == pytest.approx(np.mean([score[name].fmeasure for score in scores]))
        assert found.details[name]["recall"] == pytest.approx(np.mean([score[name].recall for score in scores]))
    assert f"stemmer:{'yes' if stemmer else 'no'}" in found.details["signatures"]["rouge"]


def test_exact_matches() -> None:
    assert exact_matches(["a", " b\n", "C"], [["x", "a"], ["b"], ["c"]]).metrics["exact_match"].value == 2 / 3


def drawn_labels(count: int = 200) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Right two times of three; one label is never right, another never predicted."""
    right = RNG.integers(0, 3, count)
    predicted = np.where(RNG.random(count) < 0.67, right, RNG.choice([0, 1, 3], count))
    predicted[predicted == 2] = 0
    return right, predicted


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_scores_of_labels_are_scikit_learns(average: str) -> None:
    right, predicted = drawn_labels()
    found = single_label_scores(right, predicted, LABELS, bootstrap=0)
    for name in ("precision", "recall", "f1"):
        expected = getattr(sklearn, f"{name}_score")(right, predicted, average=average)
        assert found.metrics[f"{name}_{average}"].value == pytest.approx(expected, abs=1e-12)
    assert found.metrics["accuracy"].value == sklearn.accuracy_score(right, predicted)
    assert found.metrics["matthews"].value == pytest.approx(sklearn.matthews_corrcoef(right, predicted))
    report = sklearn.classification_report(right, predicted, target_names=LABELS, output_dict=True)
    for label in LABELS:
        assert found.details["labels"][label]["f1"] == pytest.approx(report[label]["f1-score"])
        assert found.details["labels"][label]["support"] == report[label]["support"]
    confusion = found.details["confusion"]["rows_right_columns_predicted"]
    assert confusion == sklearn.confusion_matrix(right, predicted).tolist()


@pytest.mark.parametrize("positive", [0, 1])
def test_f1_of_one_of_two_labels(positive: int) -> None:
    right, predicted = (values % 2 for values in drawn_labels())
    found = single_label_scores(right, predicted, ["no", "yes"], positive=positive, bootstrap=0)
    for name in ("precision", "recall", "f1"):
        expected = getattr(sklearn, f"{name}_score")(right, predicted, pos_label=positive)
        assert found.metrics[name].value == pytest.approx(expected)


def test_a_positive_label_that_never_occurs() -> None:
    zeros = np.zeros(5, np.int64)
    found = single_label_scores(zeros, zeros, ["no", "yes"], positive=1)
    assert (found.metrics["f1"].value, found.metrics["accuracy"].value) == (0.0, 1.0)


def test_several_labels_at_once() -> None:
    right, predicted = RNG.random((60, 4)) < 0.4, RNG.random((60, 4)) < 0.4
    found = multi_label_scores(right, predicted, LABELS, bootstrap=0)
    for average in ("macro", "micro", "weighted", "samples"):
        expected = sklearn.f1_score(right, predicted, average=average, zero_division=0)
        assert found.metrics[f"f1_{average}"].value == pytest.approx(expected)
    assert found.metrics["accuracy"].value == sklearn.accuracy_score(right, predicted)


def test_numbers() -> None:
    right = RNG.integers(0, 6, 50).astype(np.float64)  # with ties
    predicted = right + RNG.normal(0, 1, 50)
    found = number_scores(right, predicted, bootstrap=0)
    assert found.metrics["pearson"].value == pytest.approx(scipy.stats.pearsonr(right, predicted).statistic)
    assert found.metrics["spearman"].value == pytest.approx(scipy.stats.spearmanr(right, predicted).statistic)
    assert found.metrics["mean_squared_error"].value == pytest.approx(sklearn.mean_squared_error(right, predicted))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of accuracies drawn around 0.7, about 95 of 100 intervals hold it."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(100):
        hits = (rng.random(150) < 0.7).astype(np.float64)

        def accuracy(weights: npt.NDArray[np.float64], hits: npt.NDArray[np.float64] = hits) -> dict[str, float]:
            return {"accuracy": float(weights @ hits / weights.sum())}

        metric = with_intervals(len(hits), accuracy, 300)["accuracy"]
        assert metric.low is not None
        assert metric.high is not None
        held += metric.low <= 0.7 <= metric.high
        for same in (mean(hits, most=1), share(hits)):
            assert (same.low, same.high) == pytest.approx((metric.low, metric.high), abs=0.025)
    assert 88 <= held <= 100


TAGS = ["O", "B", "I", "B-PER", "I-PER", "B-LOC", "I-LOC", "E-LOC", "S-PER", "I-MISC-X", "B-MISC-X"]
SENTENCE = st.lists(st.sampled_from(TAGS), min_size=1, max_size=9)


@given(SENTENCE)
@example(["O", "I", "O", "E-LOC", "I-LOC", "S-PER", "I-PER"])
@settings(deadline=None, max_examples=300)
def test_entities_are_seqevals(tags: list[str]) -> None:
    assert entities_in(tags) == seqeval.sequence_labeling.get_entities(tags)


@given(st.lists(st.tuples(SENTENCE, st.randoms(use_true_random=False)), min_size=1, max_size=5))
@settings(deadline=None, max_examples=50)
def test_entity_scores_are_seqevals(drawn: list[Any]) -> None:
    right = [tags for tags, _ in drawn]
    predicted = [[tag if rng.random() < 0.6 else rng.choice(TAGS) for tag in tags] for tags, rng in drawn]
    found = entity_scores([Tags(a, b) for a, b in zip(right, predicted, strict=True)], bootstrap=0).metrics
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("precision", "recall", "f1"):
            assert found[name].value == pytest.approx(getattr(seqeval, f"{name}_score")(right, predicted))
        for average in ("macro", "weighted"):
            if any(entities_in(tags) for tags in [*right, *predicted]):  # it has no average of no entities
                expected = seqeval.f1_score(right, predicted, average=average)
                assert found[f"f1_{average}"].value == pytest.approx(expected)
        assert found["accuracy"].value == pytest.approx(seqeval.accuracy_score(right, predicted))


WORDS = st.lists(st.sampled_from(["the", "The", "cat", "cat.", "a", "An", "1,000", "naïve", "-", "dog's", "  "]))
ANSWER = WORDS.map(" ".join)


@given(ANSWER, st.lists(ANSWER, max_size=3))
@settings(deadline=None, max_examples=300)
def test_answers_are_judged_as_transformers_does(answer: str, right: list[str]) -> None:
    example = SimpleNamespace(qas_id="q", answers=[{"text": text} for text in right])
    exact, f1 = squad_metrics.get_raw_scores([example], {"q": answer})
    assert answers.exact_match(answer, right) == exact["q"]
    assert answers.f1(answer, right) == pytest.approx(f1["q"])


def test_divergence_is_the_sum_over_all_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "BLOCK", 4 * 33)  # several blocks
    reference, candidate = RNG.normal(0, 3, (11, 33)), RNG.normal(0, 3, (11, 33))
    targets = RNG.integers(0, 33, 11)
    rows = compared(reference.astype(np.float32), candidate.astype(np.float32), targets)
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (reference, candidate))
    assert rows.divergence == pytest.approx((p * np.log(p / q)).sum(axis=1), rel=1e-5)
    assert rows.same_first.tolist() == (p.argmax(axis=1) == q.argmax(axis=1)).tolist()
    assert rows.candidate == pytest.approx(np.log(q[np.arange(11), targets]), rel=1e-5)
    assert rows.reference == pytest.approx(np.log(p[np.arange(11), targets]), rel=1e-5)
    assert len(joined([rows, rows]).divergence) == 22


def test_pieces_of_two_models_are_cut_alike() -> None:
    whole = RNG.normal(size=(10, 2)).astype(np.float32)
    pairs = list(in_step([whole[:4], whole[4:]], [whole[:3], whole[3:7], whole[7:]]))
    assert [len(a) for a, _ in pairs] == [3, 1, 3, 3]
    assert all((a == b).all() for a, b in pairs)
    assert np.concatenate([a for a, _ in pairs]).tolist() == whole.tolist()


@given(st.integers(0, 60), st.integers(2, 20), st.integers(1, 20))
def test_every_token_but_the_first_of_a_window_is_predicted_once(length: int, window: int, stride: int) -> None:
    stride = min(stride, window)
    windows = list(sliding_windows(lambda count: min(count, length), window, stride))
    scored = [token for w in windows for token in range(w.scored, w.end)]
    first = {0} if stride < window else {*range(0, length, stride)}
    assert scored == [token for token in range(length) if token not in first]
    assert all(w.end - w.begin <= window and w.begin < w.scored for w in windows)


@given(st.text(alphabet="aé漢🙂 \n", max_size=30), st.data())
def test_bytes_and_words_add_up(text: str, data: st.DataObject) -> None:
    """However the text is cut, also where a token has no text, as special ones at its ends, and where two share a
    character."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    ends = [0, *cuts, len(text)]
    offsets = np.array([[0, 0], *zip([0, *ends], ends, strict=False), [0, 0]], np.int64)
    units = units_of(text, offsets)
    assert units.bytes.sum() == len(text.encode())
    assert units.words.sum() == len(text.split())
    assert (units.bytes >= 0).all()
    assert units.bytes[0] == units.bytes[-1] == 0


def test_intervals_stay_within_the_scale() -> None:
    assert (mean([0.0, 0.0, 1.0], most=1).low, mean([1.0, 0.9, 0.2], most=1, factor=100).high) == (0, 100)
    none, every = share([0.0] * 4, factor=100), share([True] * 4)
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(48.99, abs=0.01)  # Wilson (1927)
    assert (every.low, every.high) == (pytest.approx(0.5101, abs=1e-4), 1)


def test_the_mean_of_nothing_and_of_one() -> None:
    assert math.isnan(mean([]).value)
    assert math.isnan(share([]).value)
    assert mean([2.0]).low is None


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(MissingDependencyError, match=r"needs sacrebleu.*pip install edgellm\[eval\]"):
        text_scores.library("sacrebleu")
