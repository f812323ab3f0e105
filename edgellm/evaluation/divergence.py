"""How far a model's predictions are from those of a reference: KL divergence, top-1 agreement, perplexity of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from edgellm.evaluation.columns import Columns
from edgellm.evaluation.distributions import ComparedRows, compared, findings_of, in_step, joined
from edgellm.evaluation.evaluator import Generative, ItemResult
from edgellm.evaluation.passages import Passage, PassageEvaluator
from edgellm.evaluation.results import Findings, Metric, mean, transformed
from edgellm.loading import AnyModel
from edgellm.models.decoder import Model
from edgellm.models.encoder_decoder import EncoderDecoderModel
from edgellm.types import Logits

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
