"""Sentences in words, and the tag that each word should get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import InputError
from edgellm.evaluation.base import Outcome, tokenizer_of
from edgellm.evaluation.bootstrap import ROUNDS
from edgellm.evaluation.columns import Columns, check_text_at
from edgellm.evaluation.entity_scores import Tags, entity_scores, has_entities
from edgellm.evaluation.label_scores import single_label_scores
from edgellm.evaluation.labels import Labels, check_length
from edgellm.evaluation.records import Record
from edgellm.evaluation.results import Findings
from edgellm.models.encoder import EncoderModel
from edgellm.text.encodings import NONE, Encoding, truncated

OUTSIDE = "O"


@dataclass(frozen=True)
class Tagged:
    encoding: Encoding
    words: Sequence[str]
    tags: Sequence[str]
    place: str


class TokenClassification:
    """F1 of entities and accuracy of tags; where labels know no entities, as parts of speech, the scores of labels.

    A word's tag is that of its first token, as in the training scripts of transformers. A word without tokens, or cut
    off, is tagged O."""

    batch_size = 32

    def __init__(
        self,
        model: EncoderModel,
        columns: Columns,
        *,
        label: Mapping[str, str] | None = None,
        truncation: bool = False,
        bootstrap: int = ROUNDS,
    ) -> None:
        """label: what the data calls a tag, and what the model does."""
        self._model, self._columns = model, columns
        self._labels = Labels.create(model.manifest.model.labels, label)
        self._truncation, self._bootstrap = truncation, bootstrap

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"label": dict(self._labels.renamed), "truncation": self._truncation}

    def items(self, record: Record) -> Iterator[Tagged]:
        words, tags = (_list(self._columns.value(record, role), role, record.place) for role in ("tokens", "tags"))
        if len(words) != len(tags):
            raise InputError(f"{record.place}: {len(words)} words and {len(tags)} tags, expected as many of each")
        for word in words:
            check_text_at(word, record.place)
        longest = self._model.manifest.context_length
        encoding = tokenizer_of(self._model).encoding(words)
        check_length(len(encoding), longest, record.place, self._truncation)
        names = [self._labels.names[self._labels.of(tag, record.place)] for tag in tags]
        yield Tagged(truncated(encoding, longest), words, names, record.place)

    def run(self, items: Sequence[Tagged]) -> list[Outcome[Tags]]:
        results = self._model.run([item.encoding for item in items])
        return [self._outcome(item, result.logits) for item, result in zip(items, results, strict=True)]

    def findings(self, seen: Sequence[Tags]) -> Findings:
        if has_entities(self._labels.names):
            return entity_scores(seen, bootstrap=self._bootstrap)
        names = [*self._labels.names, OUTSIDE]
        right, predicted = ([names.index(t) for s in seen for t in side(s)] for side in (_right, _predicted))
        return single_label_scores(np.array(right), np.array(predicted), names, bootstrap=self._bootstrap)

    def _outcome(self, item: Tagged, logits: npt.NDArray[np.float32]) -> Outcome[Tags]:
        """logits: [tokens, labels]."""
        found = [OUTSIDE] * len(item.words)
        words = item.encoding.words.tolist()
        for token in range(len(words) - 1, -1, -1):  # the first token of a word has the last say
            if words[token] != NONE:
                found[words[token]] = self._labels.names[int(logits[token].argmax())]
        line = {"place": item.place, "words": item.words, "prediction": found, "tags": item.tags}
        return Outcome(Tags(item.tags, found), line)


def _right(sentence: Tags) -> Sequence[str]:
    return sentence.right


def _predicted(sentence: Tags) -> Sequence[str]:
    return sentence.predicted


def _list(value: Any, role: str, place: str) -> list[Any]:
    """A list, or a text with spaces between its words. Raises InputError."""
    values = value.split() if isinstance(value, str) else value
    if not isinstance(values, list) or not values:
        raise InputError(f"{place}: {role} is no list with something in it, and no text with spaces between its words")
    return values
