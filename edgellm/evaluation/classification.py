"""Texts, or pairs of texts, and the labels that they should get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import InputError
from edgellm.evaluation.evaluator import ItemResult, text_or_pair
from edgellm.evaluation.label_evaluator import LabelEvaluator
from edgellm.evaluation.label_scores import multi_label_scores, number_scores, single_label_scores
from edgellm.evaluation.records import Columns, Record
from edgellm.evaluation.results import ROUNDS, Findings
from edgellm.models.encoder import EncoderModel
from edgellm.pipelines.scores import sigmoid, softmax
from edgellm.text.encodings import Encoding

LIKELY = 0.5  # from this probability on, one of several labels is predicted


@dataclass(frozen=True)
class Labelled:
    """An input and what is `right`: the number of a label, a bool for each label where several may be, or a number to
    predict."""

    encoding: Encoding
    right: Any
    place: str


@dataclass(frozen=True)
class Decided:
    """What was right and what the model said, in the form of `Labelled.right`."""

    right: Any
    predicted: Any


class ClassificationEvaluator(LabelEvaluator):
    """Accuracy and F1 of a model for text-classification; correlations where it predicts a number."""

    def __init__(
        self,
        model: EncoderModel,
        columns: Columns,
        *,
        positive: str | None = None,
        label: Mapping[str, str] | None = None,
        truncation: bool = False,
        bootstrap: int = ROUNDS,
    ) -> None:
        """positive: the label that precision, recall and F1 are of, where the model has two; None is the second."""
        super().__init__(model, columns, label=label, truncation=truncation, bootstrap=bootstrap)
        self._problem = model.manifest.model.problem_type
        self._positive = self._positive_label(positive)

    @property
    def settings(self) -> Mapping[str, Any]:
        positive = None if self._positive is None else self._labels.names[self._positive]
        return {"positive": positive, **super().settings}

    def items(self, record: Record) -> Iterator[Labelled]:
        encoding = self._cut(text_or_pair(self._model, self._columns, record), record.place)
        yield Labelled(encoding, self._right(self._columns.value(record, "label"), record.place), record.place)

    def run(self, items: Sequence[Labelled]) -> list[ItemResult[Decided]]:
        results = self._model.run([item.encoding for item in items])
        return [self._result(item, result.logits) for item, result in zip(items, results, strict=True)]

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

    def _result(self, item: Labelled, logits: npt.NDArray[np.float32]) -> ItemResult[Decided]:
        """logits: [labels]."""
        names, line = self._labels.names, {"place": item.place}
        if self._problem == "regression":
            found = float(logits[0])
            return ItemResult(Decided(item.right, found), {**line, "prediction": found, "label": item.right})
        if self._problem == "multi_label_classification":
            likely = (sigmoid(logits) >= LIKELY).tolist()
            chosen = [[name for name, yes in zip(names, row, strict=True) if yes] for row in (likely, item.right)]
            return ItemResult(Decided(item.right, likely), {**line, "prediction": chosen[0], "label": chosen[1]})
        best = int(logits.argmax())
        score = float(softmax(logits)[best])
        facts = {**line, "prediction": names[best], "score": score, "label": names[item.right]}
        return ItemResult(Decided(item.right, best), facts)


def _number(value: Any, place: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{place}: the label {value!r} is no number, and the model predicts one") from error
