"""An encoder beside a reference: divergence of what its head says, or the angle between hidden states and vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import TaskError
from edgellm.evaluation.base import Outcome, tokenizer_of
from edgellm.evaluation.columns import Columns
from edgellm.evaluation.distributions import Rows, compared, findings_of, joined
from edgellm.evaluation.records import Record
from edgellm.evaluation.results import Findings, Metric, mean
from edgellm.loading import AnyModel
from edgellm.models.encoder import EncoderModel, EncoderResult
from edgellm.text.encodings import Encoding, truncated


@dataclass(frozen=True)
class Input:
    encoding: Encoding
    place: str


@dataclass(frozen=True)
class Compared:
    """`rows`: of distributions; of models that give none, `cosines`, one per token or vector."""

    rows: Rows | None
    cosines: npt.NDArray[np.float64] | None


class EncoderDivergence:
    """Texts, pairs of texts, questions with contexts, or lists of words, cut to what the model takes. Compared are the
    rows of logits: of every token for fill-mask, of every token of the text for token-classification, of the text, or
    of the answer's beginning and end."""

    batch_size = 1  # of fill-mask, the logits of a batch would be large

    def __init__(self, model: EncoderModel, columns: Columns, *, reference: Callable[[], AnyModel]) -> None:
        problem = model.manifest.model.problem_type
        if problem in ("regression", "multi_label_classification"):
            raise TaskError(f"a model of the kind {problem} gives no distribution to compare; evaluate it on labels")
        self._model = model
        self._columns = columns
        self._open = reference

    @property
    def settings(self) -> Mapping[str, Any]:
        return {}

    def items(self, record: Record) -> Iterator[Input]:
        tokenizer, columns = tokenizer_of(self._model), self._columns
        if self._model.manifest.task == "question-answering":
            encoding = tokenizer.encoding(columns.text(record, "question"), columns.text(record, "context"))
        elif columns.has(record, "tokens"):
            encoding = tokenizer.encoding(columns.texts(record, "tokens"))
        else:
            pair = columns.text(record, "text_pair") if columns.has(record, "text_pair") else None
            encoding = tokenizer.encoding(columns.text(record, "text"), pair)
        yield Input(truncated(encoding, self._model.manifest.context_length), record.place)

    def run(self, items: Sequence[Input]) -> list[Outcome[Compared]]:
        reference = self._open()
        assert isinstance(reference, EncoderModel)
        if self._model.manifest.model.embedding is not None:
            return self._vectors(items, reference)
        encodings = [item.encoding for item in items]
        both = zip(items, reference.run(encodings), self._model.run(encodings), strict=True)
        return [self._outcome(item, theirs, ours) for item, theirs, ours in both]

    def findings(self, seen: Sequence[Compared]) -> Findings:
        if seen[0].cosines is not None:
            cosines = np.concatenate([one.cosines for one in seen if one.cosines is not None])
            return Findings(
                {"cosine": mean(cosines), "cosine_min": Metric(float(cosines.min()))}, {"rows": len(cosines)}
            )
        rows = joined(one.rows for one in seen if one.rows is not None)
        metrics, details = findings_of(rows)
        return Findings(metrics, {"rows": len(rows.divergence), **details})

    def _vectors(self, items: Sequence[Input], reference: EncoderModel) -> list[Outcome[Compared]]:
        encodings = [item.encoding for item in items]
        cut = {"truncation": "longest_first"}
        ours, theirs = self._model.embed(encodings, **cut), reference.embed(encodings, **cut)  # type: ignore[arg-type]
        return [_angles(item, a[None], b[None]) for item, a, b in zip(items, theirs, ours, strict=True)]

    def _outcome(self, item: Input, theirs: EncoderResult, ours: EncoderResult) -> Outcome[Compared]:
        task = self._model.manifest.task
        if task == "feature-extraction":
            return _angles(item, theirs.logits, ours.logits)
        rows = compared(_rows(theirs, task), _rows(ours, task))
        found = {"kl_divergence": float(rows.divergence.mean()), "top1_agreement": float(rows.same_first.mean())}
        return Outcome(Compared(rows, None), {"place": item.place, "rows": len(rows.divergence), **found})


def _rows(result: EncoderResult, task: str) -> npt.NDArray[np.float32]:
    """[rows, entries]."""
    if task == "question-answering":
        return np.stack([result.start, result.end])
    if task == "text-classification":
        return result.logits[None]
    return result.logits[~result.encoding.special] if task == "token-classification" else result.logits


def _angles(item: Input, theirs: npt.NDArray[Any], ours: npt.NDArray[Any]) -> Outcome[Compared]:
    """theirs, ours: [rows, hidden]."""
    a, b = theirs.astype(np.float64), ours.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosines = (a * b).sum(axis=-1) / np.maximum(norms, 1e-30)
    return Outcome(Compared(None, cosines), {"place": item.place, "cosine": float(cosines.mean())})
