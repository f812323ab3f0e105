"""How far a model's predictions are from those of a reference: KL divergence, top-1 agreement, perplexity of both; of
encoders' hidden states and vectors, the angle between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import TaskError
from edgellm.evaluation.distributions import ComparedRows, compared, findings_of, in_step, joined
from edgellm.evaluation.evaluator import Generative, ItemResult, text_or_pair, tokenizer_of
from edgellm.evaluation.passages import Passage, PassageEvaluator
from edgellm.evaluation.records import Columns, Record
from edgellm.evaluation.results import Findings, Metric, mean, transformed
from edgellm.loading import AnyModel
from edgellm.models.decoder import Model
from edgellm.models.encoder import EncoderModel, EncoderResult
from edgellm.models.encoder_decoder import EncoderDecoderModel
from edgellm.text.encodings import Encoding, truncated
from edgellm.types import DoubleArray, Logits

OpenReference = Callable[[], AnyModel]


class DivergenceEvaluator(PassageEvaluator):
    """Compares what two models predict for the tokens that perplexity is of."""

    def __init__(
        self,
        model: Generative,
        columns: Columns,
        *,
        reference: OpenReference,
        window: int | None = None,
        stride: int | None = None,
    ) -> None:
        """`reference` is called when the data has been checked. `window` and `stride`: as for perplexity."""
        super().__init__(model, columns, window=window, stride=stride)
        self._open = reference

    def run(self, items: Sequence[Passage]) -> list[ItemResult[ComparedRows]]:
        reference = self._open()
        return [self._result(passage, reference) for passage in items]

    def findings(self, seen: Sequence[ComparedRows]) -> Findings:
        rows = joined(seen)
        shared, details = findings_of(rows)
        perplexities = {
            "perplexity": _perplexity(-rows.candidate),
            "perplexity_reference": _perplexity(-rows.reference),
            "perplexity_ratio": _perplexity(rows.reference - rows.candidate),
        }
        return Findings({**shared, **perplexities}, {"tokens": len(rows.divergence), **details})

    def _result(self, passage: Passage, reference: AnyModel) -> ItemResult[ComparedRows]:
        parts, done = [], 0
        for theirs, ours in in_step(_chunks(reference, passage), _chunks(self._model, passage)):
            # A row at place i predicts the token at i + 1.
            begin, end = max(passage.scored - 1 - done, 0), min(len(ours), len(passage.tokens) - 1 - done)
            if begin < end:
                targets = passage.tokens[done + begin + 1 : done + end + 1]
                parts.append(compared(theirs[begin:end], ours[begin:end], targets))
            done += len(ours)
        rows = joined(parts)
        return ItemResult(rows, {"place": passage.place, "tokens": len(rows.divergence), **rows.means()})


def _chunks(model: AnyModel, passage: Passage) -> Iterator[Logits]:
    if isinstance(model, EncoderDecoderModel):
        return model.logits_in_chunks(str(passage.source), passage.tokens)
    assert isinstance(model, Model)
    return model.logits_in_chunks(passage.tokens)


def _perplexity(losses: Any) -> Metric:
    return transformed(mean(losses), math.exp)


@dataclass(frozen=True)
class EncoderInput:
    encoding: Encoding
    place: str


Compared = ComparedRows | DoubleArray  # distributions; of models that give none, a cosine per token or vector


class EncoderDivergenceEvaluator:
    """Compares what two encoders say of texts, pairs of texts, questions with contexts, or lists of words, cut to what
    the model takes.

    Each input gives rows of logits: fill-mask one for every token, token-classification one for every token of the
    text, text-classification one, question-answering two, for the answer's beginning and its end.
    """

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

    def items(self, record: Record) -> Iterator[EncoderInput]:
        columns = self._columns
        if self._model.manifest.task == "question-answering":
            encoding = tokenizer_of(self._model).encoding(
                columns.text(record, "question"), columns.text(record, "context")
            )
        elif columns.has(record, "tokens"):
            encoding = tokenizer_of(self._model).encoding(columns.texts(record, "tokens"))
        else:
            encoding = text_or_pair(self._model, columns, record)
        yield EncoderInput(truncated(encoding, self._model.manifest.context_length), record.place)

    def run(self, items: Sequence[EncoderInput]) -> list[ItemResult[Compared]]:
        reference = self._open()
        assert isinstance(reference, EncoderModel)
        if self._model.manifest.model.embedding is not None:
            return self._vectors(items, reference)
        encodings = [item.encoding for item in items]
        both = zip(items, reference.run(encodings), self._model.run(encodings), strict=True)
        return [self._result(item, theirs, ours) for item, theirs, ours in both]

    def findings(self, seen: Sequence[Compared]) -> Findings:
        cosines = np.concatenate([np.zeros(0), *(one for one in seen if isinstance(one, np.ndarray))])
        if len(cosines):
            return Findings(
                {"cosine": mean(cosines), "cosine_min": Metric(float(cosines.min()))}, {"rows": len(cosines)}
            )
        rows = joined(one for one in seen if isinstance(one, ComparedRows))
        metrics, details = findings_of(rows)
        return Findings(metrics, {"rows": len(rows.divergence), **details})

    def _vectors(self, items: Sequence[EncoderInput], reference: EncoderModel) -> list[ItemResult[Compared]]:
        encodings = [item.encoding for item in items]
        cut = {"truncation": "longest_first"}
        ours, theirs = self._model.embed(encodings, **cut), reference.embed(encodings, **cut)  # type: ignore[arg-type]
        return [_angles(item, a[None], b[None]) for item, a, b in zip(items, theirs, ours, strict=True)]

    def _result(self, item: EncoderInput, theirs: EncoderResult, ours: EncoderResult) -> ItemResult[Compared]:
        task = self._model.manifest.task
        if task == "feature-extraction":
            return _angles(item, theirs.logits, ours.logits)
        rows = compared(_rows(theirs, task), _rows(ours, task))
        return ItemResult(rows, {"place": item.place, "rows": len(rows.divergence), **rows.means()})


def _rows(result: EncoderResult, task: str) -> npt.NDArray[np.float32]:
    """The distributions of a result: [rows, entries]."""
    if task == "question-answering":
        return np.stack([result.start, result.end])
    if task == "text-classification":
        return result.logits[None]
    return result.logits[~result.encoding.special] if task == "token-classification" else result.logits


def _angles(item: EncoderInput, theirs: npt.NDArray[Any], ours: npt.NDArray[Any]) -> ItemResult[Compared]:
    """theirs, ours: [rows, hidden]."""
    a, b = theirs.astype(np.float64), ours.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosines = (a * b).sum(axis=-1) / np.maximum(norms, 1e-30)
    return ItemResult(cosines, {"place": item.place, "cosine": float(cosines.mean())})
