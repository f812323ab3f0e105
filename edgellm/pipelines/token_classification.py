"""token-classification, also ner: a label for each token of a text, or the entities they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgellm.errors import InputError, OptionError
from edgellm.pipelines.base import texts_of
from edgellm.pipelines.encoder import EncoderPipeline
from edgellm.pipelines.entities import (
    Entity,
    LabelledToken,
    Strategy,
    as_dict,
    entities_of,
    older_spelling,
    strategy_of,
    without_overlaps,
)
from edgellm.pipelines.scores import FloatArray, softmax
from edgellm.text.encodings import NONE, Encoding, truncated, windows
from edgellm.types import IntArray


@dataclass(frozen=True)
class Sentence:
    """What the model reads of one input. `windows` have offsets in `text`, also where the input was a list of words."""

    text: str
    windows: tuple[Encoding, ...]


class TokenClassification(EncoderPipeline):
    """Gives [{"entity", "score", "index", "word", "start", "end"}] for a text, one for each token; with an
    `aggregation_strategy`, [{"entity_group", "score", "word", "start", "end"}], one for each entity."""

    fits = ("token-classification",)

    def is_single(self, inputs: Any, options: Mapping[str, Any]) -> bool:
        if options.get("is_split_into_words") and isinstance(inputs, Sequence) and not isinstance(inputs, str):
            return not all(isinstance(item, list) for item in inputs)
        return super().is_single(inputs, options)

    def shape(self, inputs: Any, results: list[Any], *, single: bool, given: Mapping[str, Any]) -> Any:
        """As Hugging Face has it, a list of words gets a list of results too."""
        return results[0] if single and isinstance(inputs, str) else results

    def each(
        self,
        items: list[Any],
        *args: Any,
        aggregation_strategy: str = "none",
        ignore_labels: Sequence[str] = ("O",),
        stride: int | None = None,
        is_split_into_words: bool = False,
        delimiter: str = " ",
        grouped_entities: bool | None = None,
        ignore_subwords: bool | None = None,
    ) -> list[list[dict[str, Any]]]:
        """With `stride`, a text that is too long is not cut but read in windows that overlap by so many tokens; it
        needs an aggregation_strategy. With `is_split_into_words` an input is a list of words, which `delimiter` joins.
        `grouped_entities` and `ignore_subwords` are the older spelling of "simple" and "first"."""
        strategy = older_spelling(grouped_entities, ignore_subwords) or strategy_of(aggregation_strategy)
        if stride is not None and strategy == "none":
            raise OptionError("stride needs an aggregation_strategy: simple, first, average or max")
        sentences = [
            self._of_words(item, delimiter, stride) if is_split_into_words else self._of_text(item, stride)
            for item in items
        ]
        logits = iter(self.logits([window for sentence in sentences for window in sentence.windows]))
        results = []
        for sentence in sentences:
            found = [self._entities(sentence.text, window, next(logits), strategy) for window in sentence.windows]
            wanted = [[e for e in entities if e.label not in ignore_labels] for entities in found]
            merged = without_overlaps([e for entities in wanted for e in entities]) if len(wanted) > 1 else wanted[0]
            results.append([as_dict(entity) for entity in merged])
        return results

    def _of_text(self, text: Any, stride: int | None) -> Sentence:
        if not isinstance(text, str):
            raise InputError(
                f"expected text, found {type(text).__name__}; lists of words need is_split_into_words=True"
            )
        return Sentence(text, self._cut(self.tokenizer.encoding(text), stride))

    def _of_words(self, words: Any, delimiter: str, stride: int | None) -> Sentence:
        if isinstance(words, str):
            raise InputError("is_split_into_words takes lists of words, found a text")
        encoding = self.tokenizer.encoding(texts_of(words))
        return Sentence(delimiter.join(words), self._cut(in_sentence(encoding, words, delimiter), stride))

    def _cut(self, encoding: Encoding, stride: int | None) -> tuple[Encoding, ...]:
        if stride is None:
            return (truncated(encoding, self.special.max_length, at=self.tokenizer.truncation_side),)
        return tuple(windows(encoding, 0, self.special.max_length, stride))

    def _entities(self, text: str, encoding: Encoding, logits: FloatArray, strategy: Strategy) -> list[Entity]:
        words = [self.tokenizer.token_of(int(token)) for token in encoding.ids]
        inside = inside_words(text, encoding, words, marked=self.tokenizer.marks_continuations)
        unknown = encoding.ids == self.special.unk
        scores = softmax(logits)
        tokens = [
            LabelledToken(
                text[start:end] if unknown[i] else words[i],
                scores[i],
                start,
                end,
                i,
                bool(inside[i] and not unknown[i]),
            )
            for i, (start, end) in enumerate(encoding.offsets.tolist())
            if not encoding.special[i]
        ]
        return entities_of(tokens, self.labels, strategy, self.tokenizer.join)


def in_sentence(encoding: Encoding, words: Sequence[str], delimiter: str) -> Encoding:
    """The encoding with offsets that count from the beginning of each word moved to where the word is in the
    sentence."""
    lengths = [0, *(len(word) + len(delimiter) for word in words)]
    begins: IntArray = np.cumsum(lengths)[:-1]
    shift = np.where(encoding.words == NONE, 0, begins[np.maximum(encoding.words, 0)] if len(words) else 0)
    return encoding.moved(shift)


def inside_words(text: str, encoding: Encoding, tokens: Sequence[str], *, marked: bool) -> list[bool]:
    """Whether each token continues a word. Where such tokens are `marked`, they have a prefix that the text lacks, so
    token and text differ in length; elsewhere they are those with no space before them."""
    spans = encoding.offsets.tolist()
    if marked:
        return [len(token) != end - start for token, (start, end) in zip(tokens, spans, strict=True)]
    return [start > 0 and " " not in text[start - 1 : start + 1] for start, _ in spans]
