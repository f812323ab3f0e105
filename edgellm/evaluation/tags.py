"""Sentences in words, and the tag that each word should get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import InputError
from edgellm.evaluation.evaluator import ItemResult, tokenizer_of
from edgellm.evaluation.label_evaluator import LabelEvaluator
from edgellm.evaluation.label_scores import Tags, entity_scores, has_entities, single_label_scores
from edgellm.evaluation.records import Record, check_text_at
from edgellm.evaluation.results import Findings
from edgellm.text.encodings import NONE, Encoding

OUTSIDE = "O"


@dataclass(frozen=True)
class Tagged:
    """A sentence in words, the tag that each should get, and what the encoder reads of it."""

    encoding: Encoding
    words: Sequence[str]
    tags: Sequence[str]
    place: str


class TagEvaluator(LabelEvaluator):
    """F1 of entities and accuracy of tags; where labels know no entities, as parts of speech, the scores of labels.

    A word's tag is that of its first token, as in the training scripts of transformers. A word without tokens, or cut
    off, is tagged O.
    """

    def items(self, record: Record) -> Iterator[Tagged]:
        words, tags = (_words(self._columns.value(record, role), role, record.place) for role in ("tokens", "tags"))
        if len(words) != len(tags):
            raise InputError(f"{record.place}: {len(words)} words and {len(tags)} tags, expected as many of each")
        for word in words:
            check_text_at(word, record.place)
        encoding = self._cut(tokenizer_of(self._model).encoding(words), record.place)
        names = [self._labels.names[self._labels.of(tag, record.place)] for tag in tags]
        yield Tagged(encoding, words, names, record.place)

    def run(self, items: Sequence[Tagged]) -> list[ItemResult[Tags]]:
        results = self._model.run([item.encoding for item in items])
        return [self._result(item, result.logits) for item, result in zip(items, results, strict=True)]

    def findings(self, seen: Sequence[Tags]) -> Findings:
        if has_entities(self._labels.names):
            return entity_scores(seen, bootstrap=self._bootstrap)
        names = [*self._labels.names, OUTSIDE]
        right = [names.index(tag) for sentence in seen for tag in sentence.right]
        predicted = [names.index(tag) for sentence in seen for tag in sentence.predicted]
        return single_label_scores(np.array(right), np.array(predicted), names, bootstrap=self._bootstrap)

    def _result(self, item: Tagged, logits: npt.NDArray[np.float32]) -> ItemResult[Tags]:
        """logits: [tokens, labels]."""
        found = [OUTSIDE] * len(item.words)
        words = item.encoding.words.tolist()
        for token in range(len(words) - 1, -1, -1):  # the first token of a word has the last say
            if words[token] != NONE:
                found[words[token]] = self._labels.names[int(logits[token].argmax())]
        line = {"place": item.place, "words": item.words, "prediction": found, "tags": item.tags}
        return ItemResult(Tags(item.tags, found), line)


def _words(value: Any, role: str, place: str) -> list[Any]:
    """The value as a list: it is one, or a text with spaces between its words. Raises InputError."""
    values = value.split() if isinstance(value, str) else value
    if not isinstance(values, list) or not values:
        raise InputError(f"{place}: {role} is no list with something in it, and no text with spaces between its words")
    return values
