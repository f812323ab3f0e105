"""sentence-similarity: how alike a text and others are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgellm.errors import InputError
from edgellm.models.encoder import EncoderModel
from edgellm.pipelines.base import Pipeline, TruncationChoice, texts_of, truncation_of
from edgellm.pipelines.scores import FloatArray
from edgellm.text.encodings import Truncation

KEYS = ("source_sentence", "sentences")


class SentenceSimilarity(Pipeline):
    """Gives [float], the cosines between the embeddings of `source_sentence` and of each of `sentences`. These are two
    arguments or one mapping; a list of mappings gives a list of lists."""

    fits = ("feature-extraction",)
    model: EncoderModel

    def read(self, args: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        rest = dict(options)
        named = {name: rest.pop(name) for name in KEYS if name in rest}
        if len(args) == 1 and not named:
            return args[0], rest
        missing = [name for name in KEYS if name not in named]
        if len(args) != len(missing):
            raise InputError(f"{self.task} takes {' and '.join(KEYS)}, or mappings with both")
        return {**named, **dict(zip(missing, args, strict=True))}, rest

    def each(self, items: list[Any], *args: Any, truncation: TruncationChoice = True) -> list[list[float]]:
        """`truncation` cuts texts that are longer than those of the model's training."""
        how = truncation_of(truncation)
        return [self._similarities(item, how) for item in items]

    def _similarities(self, item: Any, truncation: Truncation | None) -> list[float]:
        if not isinstance(item, Mapping) or {*item} != {*KEYS}:
            raise InputError(f"{self.task} takes {' and '.join(KEYS)}, or mappings with both")
        others = item["sentences"]
        if isinstance(others, str) or not others:
            raise InputError("sentences is one text or empty, expected a list of texts to compare with")
        embeddings = self.model.embed(texts_of([item["source_sentence"], *others]), truncation=truncation)
        return [float(value) for value in cosines(embeddings[0], embeddings[1:])]


def cosines(one: FloatArray, others: FloatArray) -> FloatArray:
    """The cosines between one [dim] and others [n, dim]: [n], 1 for the same direction, 0 for a vector of zeros."""
    lengths = np.linalg.norm(others, axis=-1) * np.linalg.norm(one)
    return np.asarray(others @ one / np.where(lengths == 0, 1, lengths))
