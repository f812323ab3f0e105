"""How well a model predicts texts: perplexity per token, and per word and byte, which tokenizers do not change."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import OptionError
from edgellm.evaluation.base import Outcome, tokenizer_of
from edgellm.evaluation.columns import Columns
from edgellm.evaluation.records import Record
from edgellm.evaluation.results import Findings, Metric, mean_of_sums, transformed
from edgellm.evaluation.token_stream import TokenStream, tokens_of
from edgellm.evaluation.windows import Units, sliding_windows, units_of
from edgellm.models.decoder import Model
from edgellm.models.encoder_decoder import EncoderDecoderModel
from edgellm.types import IntArray

WINDOW = 1024  # tokens, where the model's context has as many


@dataclass(frozen=True)
class Passage:
    """Tokens of which those from `scored` on are predicted; `bytes` and `words` are what these stand for. `source`: of
    an encoder-decoder."""

    tokens: IntArray
    scored: int
    bytes: int
    words: int
    place: str
    source: str | None = None


@dataclass(frozen=True)
class Surprise:
    """Of some tokens: the sum of their negative log-probabilities in nats, and of the squares of these."""

    tokens: int
    total: float
    squares: float
    bytes: int
    words: int

    @classmethod
    def of(cls, passage: Passage, logprobs: npt.ArrayLike) -> Surprise:
        values = np.asarray(logprobs, np.float64)
        return cls(len(values), -float(values.sum()), float((values**2).sum()), passage.bytes, passage.words)


@dataclass(frozen=True)
class Passages:
    """Records to what is run of them. `window` and `stride` are in tokens."""

    model: Model | EncoderDecoderModel
    columns: Columns
    window: int
    stride: int

    @classmethod
    def create(
        cls, model: Model | EncoderDecoderModel, columns: Columns, window: int | None, stride: int | None
    ) -> Passages:
        """Raises OptionError."""
        context = model.manifest.context_length
        window = min(WINDOW, context) if window is None else window
        if type(window) is not int or not 2 <= window <= context:
            raise OptionError(f"window is {window!r}, expected 2 to {context} tokens, the model's context")
        stride = max(1, window // 2) if stride is None else stride
        if type(stride) is not int or not 1 <= stride <= window:
            raise OptionError(f"stride is {stride!r}, expected 1 to {window} tokens, the window")
        return cls(model, columns, window, stride)

    @property
    def settings(self) -> dict[str, Any]:
        if isinstance(self.model, EncoderDecoderModel):
            return {}
        return {"window": self.window, "stride": self.stride}

    def of(self, record: Record) -> Iterator[Passage]:
        """None of a text that has no token to predict."""
        if isinstance(self.model, EncoderDecoderModel):
            yield from self._targets(record)
            return
        stream = TokenStream(tokens_of(tokenizer_of(self.model), self.columns.text(record, "text", empty=True)))
        for window in sliding_windows(stream.reach, self.window, self.stride):
            tokens = stream.take(window.begin, window.end)
            scored = window.scored - window.begin
            yield _passage(tokens.ids, scored, tokens.part(scored).units, record.place)
            stream.forget(window.begin)

    def _targets(self, record: Record) -> Iterator[Passage]:
        source = self.columns.text(record, "source")
        for target in self.columns.texts(record, "target"):
            encoding = tokenizer_of(self.model).encoding(target)
            start = self.model.manifest.tokens.decoder_start
            tokens = np.concatenate([[0 if start is None else start], encoding.ids])
            yield _passage(tokens, 1, units_of(target, encoding.offsets), record.place, source)


class Perplexity:
    """How well the model predicts texts, or an encoder-decoder the targets of its sources."""

    batch_size = 1

    def __init__(
        self,
        model: Model | EncoderDecoderModel,
        columns: Columns,
        *,
        window: int | None = None,
        stride: int | None = None,
    ) -> None:
        self._model = model
        self._passages = Passages.create(model, columns, window, stride)

    @property
    def settings(self) -> Mapping[str, Any]:
        return self._passages.settings

    def items(self, record: Record) -> Iterator[Passage]:
        return self._passages.of(record)

    def run(self, items: Sequence[Passage]) -> list[Outcome[Surprise]]:
        return [self._outcome(passage) for passage in items]

    def findings(self, seen: Sequence[Surprise]) -> Findings:
        return perplexities(seen)

    def _outcome(self, passage: Passage) -> Outcome[Surprise]:
        if isinstance(self._model, EncoderDecoderModel):
            score = self._model.score(str(passage.source), passage.tokens)
        else:
            score = self._model.score(passage.tokens)
        found = Surprise.of(passage, score.logprobs[passage.scored - 1 :])
        return Outcome(found, {"place": passage.place, "tokens": found.tokens, "nll": found.total})


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


def _passage(tokens: IntArray, scored: int, units: Units, place: str, source: str | None = None) -> Passage:
    return Passage(tokens, scored, int(units.bytes.sum()), int(units.words.sum()), place, source)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
