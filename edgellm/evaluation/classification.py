"""Texts, or pairs of texts, and the labels that they should get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import InputError
from edgellm.evaluation.base import Outcome, tokenizer_of
from edgellm.evaluation.bootstrap import ROUNDS
from edgellm.evaluation.columns import Columns
from edgellm.evaluation.label_scores import multi_label_scores, number_scores, single_label_scores
from edgellm.evaluation.labels import Labels, check_length
from edgellm.evaluation.records import Record
from edgellm.evaluation.results import Findings
from edgellm.models.encoder import EncoderModel
from edgellm.pipelines.scores import sigmoid, softmax
from edgellm.text.encodings import Encoding, truncated

LIKELY = 0.5  # from this probability on, one of several labels is predicted


@dataclass(frozen=True)
class Labelled:
    """`right`: the number of a label, a bool for each label where several may be right, or a number to predict."""

    encoding: Encoding
    right: Any
    place: str


@dataclass(frozen=True)
class Decided:
    right: Any
    predicted: Any


class TextClassification:
    """Accuracy and F1 of a model for text-classification; correlations where it predicts a number."""

    batch_size = 32

    def __init__(
        self,
        model: EncoderModel,
        columns: Columns,
        *,
        label: Mapping[str, str] | None = None,
        positive: str | None = None,
        truncation: bool = False,
        bootstrap: int = ROUNDS,
    ) -> None:
        """label: what the data calls a label, and what the model does. positive: the label that precision, recall and
        F1 are of, where the model has two; None is the second."""
        self._model, self._columns = model, columns
        self._labels = Labels.create(model.manifest.model.labels, label)
        self._problem = model.manifest.model.problem_type
        self._truncation, self._bootstrap = truncation, bootstrap
        self._positive = self._positive_label(positive)

    @property
    def settings(self) -> Mapping[str, Any]:
        positive = None if self._positive is None else self._labels.names[self._positive]
        return {"positive": positive, "label": dict(self._labels.renamed), "truncation": self._truncation}

    def items(self, record: Record) -> Iterator[Labelled]:
        columns, longest = self._columns, self._model.manifest.context_length
        pair = columns.text(record, "text_pair") if columns.has(record, "text_pair") else None
        encoding = tokenizer_of(self._model).encoding(columns.text(record, "text"), pair)
        check_length(len(encoding), longest, record.place, self._truncation)
        right = self._right(columns.value(record, "label"), record.place)
        yield Labelled(truncated(encoding, longest), right, record.place)

    def run(self, items: Sequence[Labelled]) -> list[Outcome[Decided]]:
        results = self._model.run([item.encoding for item in items])
        return [self._outcome(item, result.logits) for item, result in zip(items, results, strict=True)]

    def findings(self, seen: Sequence[Decided]) -> Findings:
        right, predicted = np.array([one.right for one in seen]), np.array([one.predicted for one in seen])
        if self._problem == "regression":
            return number_scores(right, predicted, bootstrap=self._bootstrap)
        if self._problem == "multi_label_classification":
            return multi_label_scores(right, predicted, self._labels.names, bootstrap=self._bootstrap)
        return single_label_scores(
            right, predicted, self._labels.names, positive=self._positive, bootstrap=self._bootstrap
        )

    def _positive_label(self, name: str | None) -> int | None:
        if name is not None:
            return self._labels.number(name, "positive")
        return 1 if len(self._labels.names) == 2 and self._problem in (None, "single_label_classification") else None

    def _right(self, value: Any, place: str) -> Any:
        if self._problem == "regression":
            return _number(value, place)
        if self._problem != "multi_label_classification":
            return self._labels.of(value, place)
        if not isinstance(value, list):
            raise InputError(f"{place}: the label is a {type(value).__name__}, expected a list: several may be right")
        numbers = {self._labels.of(one, place) for one in value}
        return [i in numbers for i in range(len(self._labels.names))]

    def _outcome(self, item: Labelled, logits: npt.NDArray[np.float32]) -> Outcome[Decided]:
        """logits: [labels]."""
        names, line = self._labels.names, {"place": item.place}
        if self._problem == "regression":
            found = float(logits[0])
            return Outcome(Decided(item.right, found), {**line, "prediction": found, "label": item.right})
        if self._problem == "multi_label_classification":
            likely = (sigmoid(logits) >= LIKELY).tolist()
            chosen = [[name for name, yes in zip(names, row, strict=True) if yes] for row in (likely, item.right)]
            return Outcome(Decided(item.right, likely), {**line, "prediction": chosen[0], "label": chosen[1]})
        best = int(logits.argmax())
        score = float(softmax(logits)[best])
        facts = {**line, "prediction": names[best], "score": score, "label": names[item.right]}
        return Outcome(Decided(item.right, best), facts)


def _number(value: Any, place: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{place}: the label {value!r} is no number, and the model predicts one") from error
