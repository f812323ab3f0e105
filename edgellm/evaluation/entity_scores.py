"""Entities in rows of tags, and how many are found: conlleval's scores as seqeval has them. No model is needed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.evaluation.label_scores import Counts, ratio
from edgellm.evaluation.results import ROUNDS, Findings, with_intervals

Entity = tuple[str, int, int]  # type, first word, last word


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

    def counts(weights: npt.NDArray[np.float64]) -> Counts:
        return Counts(weights @ hits, weights @ predicted, weights @ right)

    def scores(weights: npt.NDArray[np.float64]) -> Mapping[str, float]:
        averages = counts(weights).averages() if types else dict.fromkeys(NAMES.values(), 0.0)
        chosen = {name: averages[source] for name, source in NAMES.items()}
        return {**chosen, "accuracy": float(ratio(weights @ same, weights @ words))}

    return Findings(
        with_intervals(len(sentences), scores, bootstrap),
        {"words": int(words.sum()), "entities": counts(np.ones(len(sentences))).table(types)},
    )


# As seqeval names them: without an average it is all entities as one.
NAMES = {
    "precision": "precision_micro",
    "recall": "recall_micro",
    "f1": "f1_micro",
    "f1_macro": "f1_macro",
    "f1_weighted": "f1_weighted",
}


def _by_type(entities: Sequence[set[Entity]], types: Sequence[str]) -> npt.NDArray[np.float64]:
    """How many entities of each type each sentence has: [sentences, types]."""
    table = np.zeros((len(entities), len(types)))
    for row, found in enumerate(entities):
        for entity in found:
            table[row, types.index(entity[0])] += 1
    return table
