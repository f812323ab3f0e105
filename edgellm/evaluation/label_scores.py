"""Precision, recall and F1, from counts: of labels, in scikit-learn's averages, and of entities, conlleval's as seqeval
has them. No model is needed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.evaluation.results import ROUNDS, Findings, with_intervals
from edgellm.types import BoolArray, DoubleArray, IntArray

Entity = tuple[str, int, int]  # type, first word, last word

# As seqeval names the scores of entities: without an average it is all entities as one.
NAMES = {
    "precision": "precision_micro",
    "recall": "recall_micro",
    "f1": "f1_micro",
    "f1_macro": "f1_macro",
    "f1_weighted": "f1_weighted",
}


@dataclass(frozen=True)
class Counts:
    """How often each label was predicted where it was right, was predicted, and was right: [labels] each."""

    hits: DoubleArray
    predicted: DoubleArray
    wanted: DoubleArray

    @property
    def precision(self) -> DoubleArray:
        return ratio(self.hits, self.predicted)

    @property
    def recall(self) -> DoubleArray:
        return ratio(self.hits, self.wanted)

    @property
    def f1(self) -> DoubleArray:
        return ratio(2 * self.hits, self.predicted + self.wanted)

    def averages(self) -> dict[str, float]:
        """Each score in three averages: "macro" is the mean over labels, "weighted" counts a label by how often it is
        right, "micro" takes all labels as one."""
        one = Counts(*(np.atleast_1d(part.sum()) for part in (self.hits, self.predicted, self.wanted)))
        found = {}
        for name in ("precision", "recall", "f1"):
            each: DoubleArray = getattr(self, name)
            found[f"{name}_macro"] = float(each.mean())
            found[f"{name}_micro"] = float(getattr(one, name)[0])
            found[f"{name}_weighted"] = float(ratio((each * self.wanted).sum(), self.wanted.sum()))
        return found

    def table(self, labels: Sequence[str]) -> dict[str, dict[str, float]]:
        return {
            label: {
                "precision": float(self.precision[i]),
                "recall": float(self.recall[i]),
                "f1": float(self.f1[i]),
                "support": int(self.wanted[i]),
            }
            for i, label in enumerate(labels)
        }


def single_label_scores(
    right: IntArray, predicted: IntArray, labels: Sequence[str], *, positive: int | None = None, bootstrap: int = ROUNDS
) -> Findings:
    """Scores of examples with one label each. right, predicted: [examples], numbers of labels. Averages are over the
    labels that occur in either. `positive`: the label whose own precision, recall and F1 are wanted."""
    present, codes = np.unique(np.concatenate([right, predicted]), return_inverse=True)
    pairs = codes[: len(right)] * len(present) + codes[len(right) :]

    def matrix(weights: DoubleArray) -> DoubleArray:
        flat = np.bincount(pairs, weights, len(present) ** 2).astype(np.float64)
        return flat.reshape(len(present), len(present))

    def scores(weights: DoubleArray) -> dict[str, float]:
        confusion = matrix(weights)
        counts = _counts(confusion)
        found = {"accuracy": float(ratio(np.trace(confusion), confusion.sum()))}
        if positive is not None:
            place = np.flatnonzero(present == positive)
            for name in ("precision", "recall", "f1"):
                values = getattr(counts, name)
                found[name] = float(values[place[0]]) if len(place) else 0.0
        return {**found, **counts.averages(), "matthews": _matthews(confusion)}

    confusion = matrix(np.ones(len(right)))
    names = [labels[i] for i in present]
    return Findings(
        with_intervals(len(right), scores, bootstrap),
        {"labels": _counts(confusion).table(names), "confusion": {"labels": names, "rows_right_columns_predicted":
         confusion.astype(int).tolist()}},
    )  # fmt: skip


def multi_label_scores(
    right: BoolArray, predicted: BoolArray, labels: Sequence[str], *, bootstrap: int = ROUNDS
) -> Findings:
    """Scores of examples with any number of labels. right, predicted: [examples, labels]. `accuracy` wants all labels
    of an example at once; `f1_samples` is the mean over examples of each one's F1."""
    hits = right & predicted
    exact = (right == predicted).all(axis=1)
    own = ratio(2.0 * hits.sum(axis=1), right.sum(axis=1) + predicted.sum(axis=1))

    def counts(weights: DoubleArray) -> Counts:
        return Counts(weights @ hits, weights @ predicted, weights @ right)

    def scores(weights: DoubleArray) -> dict[str, float]:
        total = weights.sum()
        means = {"accuracy": float(weights @ exact / total), "f1_samples": float(weights @ own / total)}
        return {**means, **counts(weights).averages()}

    table = counts(np.ones(len(right))).table(labels)
    return Findings(with_intervals(len(right), scores, bootstrap), {"labels": table})


def number_scores(right: DoubleArray, predicted: DoubleArray, *, bootstrap: int = ROUNDS) -> Findings:
    """Correlations of two rows of numbers, right and predicted [examples], and the mean of squared differences."""
    ranks = _ranks(right), _ranks(predicted)

    def scores(weights: DoubleArray) -> dict[str, float]:
        error = float(np.average((right - predicted) ** 2, weights=weights))
        return {
            "pearson": _correlation(right, predicted, weights),
            "spearman": _correlation(*ranks, weights),
            "mean_squared_error": error,
        }

    return Findings(with_intervals(len(right), scores, bootstrap))


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> DoubleArray:
    """part / whole, and 0 where there is nothing to divide by, as scikit-learn has it."""
    whole = np.asarray(whole, np.float64)
    return np.asarray(np.divide(part, whole, out=np.zeros_like(whole), where=whole != 0))


def _counts(confusion: DoubleArray) -> Counts:
    """The counts of each label in a table of how often [right, predicted] came together."""
    return Counts(np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1))


def _matthews(confusion: DoubleArray) -> float:
    """Matthews' correlation coefficient, for any number of labels (Gorodkin 2004)."""
    right, predicted, total = confusion.sum(axis=1), confusion.sum(axis=0), confusion.sum()
    spread = (total**2 - predicted @ predicted) * (total**2 - right @ right)
    return float(ratio(np.trace(confusion) * total - right @ predicted, np.sqrt(spread)))


def _correlation(a: DoubleArray, b: DoubleArray, weights: DoubleArray) -> float:
    a, b = a - np.average(a, weights=weights), b - np.average(b, weights=weights)
    return float(ratio((weights * a * b).sum(), np.sqrt((weights * a * a).sum() * (weights * b * b).sum())))


def _ranks(values: DoubleArray) -> DoubleArray:
    """The rank of each value, from 1; equal values share the mean of their ranks."""
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[codes])


@dataclass(frozen=True)
class Tags:
    """The tags of one sentence's words."""

    right: Sequence[str]
    predicted: Sequence[str]


def has_entities(labels: Sequence[str]) -> bool:
    """Whether labels mark where entities begin or go on."""
    return any(label.startswith(("B-", "I-")) for label in labels)


def entities_in(tags: Sequence[str]) -> list[Entity]:
    """The entities that tags mark, as conlleval reads them: an I- behind another type, or behind nothing, begins an
    entity too. Beside B- and I- there are S-, a single word, and E-, the last one."""
    found: list[Entity] = []
    before, kind, begin = "O", "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, name = tag[0], tag[1:].split("-", 1)[-1] or "_"
        if before != "O" and (before in "ES" or prefix in "BSO" or kind != name):
            found.append((kind, begin, place - 1))
        if prefix != "O" and (prefix in "BS" or before in "ESO" or kind != name):
            begin = place
        before, kind = prefix, name
    return found


def entity_scores(sentences: Sequence[Tags], *, bootstrap: int = ROUNDS) -> Findings:
    """Precision, recall and F1 of entities, which count with the right type and the right ends; `accuracy` is that of
    tags, word by word."""
    pairs = [(set(entities_in(s.right)), set(entities_in(s.predicted))) for s in sentences]
    types = sorted({entity[0] for pair in pairs for side in pair for entity in side})
    hits = _by_type([right & predicted for right, predicted in pairs], types)
    predicted = _by_type([predicted for _, predicted in pairs], types)
    right = _by_type([right for right, _ in pairs], types)
    words = np.array([len(s.right) for s in sentences], np.float64)
    same = np.array([sum(a == b for a, b in zip(s.right, s.predicted, strict=True)) for s in sentences], np.float64)

    def counts(weights: DoubleArray) -> Counts:
        return Counts(weights @ hits, weights @ predicted, weights @ right)

    def scores(weights: DoubleArray) -> Mapping[str, float]:
        averages = counts(weights).averages() if types else dict.fromkeys(NAMES.values(), 0.0)
        chosen = {name: averages[source] for name, source in NAMES.items()}
        return {**chosen, "accuracy": float(ratio(weights @ same, weights @ words))}

    return Findings(
        with_intervals(len(sentences), scores, bootstrap),
        {"words": int(words.sum()), "entities": counts(np.ones(len(sentences))).table(types)},
    )


def _by_type(entities: Sequence[set[Entity]], types: Sequence[str]) -> DoubleArray:
    """How many entities of each type each sentence has: [sentences, types]."""
    table = np.zeros((len(entities), len(types)))
    for row, found in enumerate(entities):
        for entity in found:
            table[row, types.index(entity[0])] += 1
    return table
