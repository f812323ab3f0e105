"""Texts cut into the passages whose tokens a model predicts: what perplexity and divergence have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgellm.errors import OptionError
from edgellm.evaluation.evaluator import Generative, tokenizer_of
from edgellm.evaluation.records import Columns, Record
from edgellm.evaluation.token_stream import TokenStream, Units, sliding_windows, tokens_of, units_of
from edgellm.models.encoder_decoder import EncoderDecoderModel
from edgellm.types import IntArray

WINDOW = 1024  # tokens, where the model's context has as many


@dataclass(frozen=True)
class Passage:
    """Tokens of which those from `scored` on are predicted; these stand for so many `bytes` and `words` of text.
    `source`: the text that an encoder-decoder reads first."""

    tokens: IntArray
    scored: int
    bytes: int
    words: int
    place: str
    source: str | None = None


class PassageEvaluator:
    """Makes passages of records: windows of a decoder's texts, or the targets of an encoder-decoder's sources."""

    batch_size = 1

    def __init__(
        self, model: Generative, columns: Columns, *, window: int | None = None, stride: int | None = None
    ) -> None:
        """`window`: tokens that a decoder sees at once, `stride`: from window to window. Raises OptionError."""
        context = model.manifest.context_length
        window = min(WINDOW, context) if window is None else window
        if type(window) is not int or not 2 <= window <= context:
            raise OptionError(f"window is {window!r}, expected 2 to {context} tokens, the model's context")
        stride = max(1, window // 2) if stride is None else stride
        if type(stride) is not int or not 1 <= stride <= window:
            raise OptionError(f"stride is {stride!r}, expected 1 to {window} tokens, the window")
        self._model, self._columns, self._window, self._stride = model, columns, window, stride

    @property
    def settings(self) -> Mapping[str, Any]:
        if isinstance(self._model, EncoderDecoderModel):
            return {}
        return {"window": self._window, "stride": self._stride}

    def items(self, record: Record) -> Iterator[Passage]:
        """The passages of a record. A text that has no token to predict gives none."""
        if isinstance(self._model, EncoderDecoderModel):
            yield from self._targets(self._model, record)
            return
        stream = TokenStream(tokens_of(tokenizer_of(self._model), self._columns.text(record, "text", empty=True)))
        for window in sliding_windows(stream.reach, self._window, self._stride):
            tokens = stream.take(window.begin, window.end)
            scored = window.scored - window.begin
            yield _passage(tokens.ids, scored, tokens.part(scored).units, record.place)
            stream.forget(window.begin)

    def _targets(self, model: EncoderDecoderModel, record: Record) -> Iterator[Passage]:
        source = self._columns.text(record, "source")
        start = model.manifest.tokens.decoder_start
        for target in self._columns.texts(record, "target"):
            encoding = tokenizer_of(model).encoding(target)
            tokens = np.concatenate([[0 if start is None else start], encoding.ids])
            yield _passage(tokens, 1, units_of(target, encoding.offsets), record.place, source)


def _passage(tokens: IntArray, scored: int, units: Units, place: str, source: str | None = None) -> Passage:
    return Passage(tokens, scored, int(units.bytes.sum()), int(units.words.sum()), place, source)
