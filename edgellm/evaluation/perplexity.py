"""How well a model predicts texts: perplexity per token, and per word and byte, which tokenizers do not change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.evaluation.evaluator import ItemResult
from edgellm.evaluation.passages import Passage, PassageEvaluator
from edgellm.evaluation.results import Findings, Metric, mean_of_sums, transformed
from edgellm.models.encoder_decoder import EncoderDecoderModel


@dataclass(frozen=True)
class Surprise:
    """The sum of some tokens' negative log-probabilities in nats, and the sum of their squares."""

    tokens: int
    total: float
    squares: float
    bytes: int
    words: int

    @classmethod
    def of(cls, passage: Passage, logprobs: npt.ArrayLike) -> Surprise:
        values = np.asarray(logprobs, np.float64)
        return cls(len(values), -float(values.sum()), float((values**2).sum()), passage.bytes, passage.words)


class PerplexityEvaluator(PassageEvaluator):
    """How well the model predicts texts, or an encoder-decoder the targets of its sources."""

    def run(self, items: Sequence[Passage]) -> list[ItemResult[Surprise]]:
        return [self._result(passage) for passage in items]

    def findings(self, seen: Sequence[Surprise]) -> Findings:
        return perplexities(seen)

    def _result(self, passage: Passage) -> ItemResult[Surprise]:
        if isinstance(self._model, EncoderDecoderModel):
            score = self._model.score(str(passage.source), passage.tokens)
        else:
            score = self._model.score(passage.tokens)
        found = Surprise.of(passage, score.logprobs[passage.scored - 1 :])
        return ItemResult(found, {"place": passage.place, "tokens": found.tokens, "nll": found.total})


def perplexities(seen: Sequence[Surprise]) -> Findings:
    """Intervals are those of the mean over tokens, taken as independent of one another."""
    tokens, total = sum(s.tokens for s in seen), math.fsum(s.total for s in seen)
    nll = mean_of_sums(tokens, total, math.fsum(s.squares for s in seen))
    words, size = sum(s.words for s in seen), sum(s.bytes for s in seen)

    def per(count: int) -> Metric:
        """The mean over `count` units of text instead of tokens."""
        return transformed(nll, lambda value: value * tokens / count if count else math.nan)

    return Findings(
        {
            "perplexity": transformed(nll, _exp),
            "nll": nll,
            "word_perplexity": transformed(per(words), _exp),
            "byte_perplexity": transformed(per(size), _exp),
            "bits_per_byte": transformed(per(size), lambda value: value / math.log(2)),
        },
        {"tokens": tokens, "words": words, "bytes": size},
    )


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
