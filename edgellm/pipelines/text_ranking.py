"""text-ranking: documents by how well they answer a query, of cross-encoders and of models that answer yes or no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from edgellm.errors import InputError, OptionError, TaskError
from edgellm.models.decoder import Model
from edgellm.package.json_data import read_json
from edgellm.package.sentence_steps import MODEL_CONFIG
from edgellm.pipelines.base import Pipeline, TruncationChoice, check_counts, texts_of
from edgellm.pipelines.encoder import EncoderPipeline
from edgellm.pipelines.scores import sigmoid
from edgellm.pipelines.yes_or_no import INSTRUCTION, YesOrNo

KEYS = ("query", "documents")
FUNCTIONS = {"Sigmoid": sigmoid, "Identity": np.asarray}


class TextRanking(Pipeline):
    """Gives [{"corpus_id", "score"}] for {"query": ..., "documents": [...]}, the best first: the numbers of `rank` of
    sentence-transformers' CrossEncoder. With `return_documents`, each has its "text" too."""

    fits = ("text-classification", "text-generation")

    def check(self) -> None:
        _ = self._scorer

    @cached_property
    def _scorer(self) -> YesOrNo | CrossEncoder:
        """Raises TaskError where the model gives no such numbers."""
        if isinstance(self.model, Model):
            return YesOrNo.of(self.model, self.tokenizer, self.task)
        pairs = CrossEncoder("text-classification", self.model, {})
        if len(pairs.labels) != 1:
            raise TaskError(
                f"{self.task} needs a model that gives one number for a pair of texts, this one has the labels "
                f"{', '.join(pairs.labels.values())}"
            )
        _ = pairs.function
        return pairs

    def read(self, args: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        if {*options} >= {*KEYS} and not args:
            rest = {name: value for name, value in options.items() if name not in KEYS}
            return {key: options[key] for key in KEYS}, rest
        return super().read(args, options)

    def each(
        self,
        items: list[Any],
        *args: Any,
        top_k: int | None = None,
        return_documents: bool = False,
        instruction: str | None = None,
        truncation: TruncationChoice = True,
        max_length: int | None = None,
    ) -> list[Any]:
        """`instruction`: what a model that answers yes or no is to look for; cross-encoders take none."""
        check_counts(**{name: n for name, n in (("top_k", top_k), ("max_length", max_length)) if n is not None})
        if instruction is not None and isinstance(self._scorer, CrossEncoder):
            raise OptionError("instruction is for models that generate, and this one does not; leave it out")
        return [
            [
                {"corpus_id": i, "score": score, **({"text": item["documents"][i]} if return_documents else {})}
                for i, score in self._ranked(item, instruction, truncation, max_length)[:top_k]
            ]
            for item in items
        ]

    def _ranked(
        self, item: Any, instruction: str | None, truncation: TruncationChoice, max_length: int | None
    ) -> list[tuple[int, float]]:
        """Numbers of documents and their scores, the best first."""
        if not isinstance(item, Mapping) or {*item} != {*KEYS}:
            raise InputError(f"{self.task} takes {' and '.join(KEYS)}, or mappings with both")
        documents = item["documents"]
        if isinstance(documents, str) or not documents:
            raise InputError("documents is one text or empty, expected a list of texts to rank")
        query, *texts = texts_of([item["query"], *documents])
        scorer = self._scorer
        if isinstance(scorer, YesOrNo):
            asked = INSTRUCTION if instruction is None else instruction
            scores = [scorer.score(query, text, asked, max_length) for text in texts]
        else:
            scores = scorer.scores(query, texts, truncation, max_length)
        return sorted(enumerate(scores), key=lambda each: -each[1])


class CrossEncoder(EncoderPipeline):
    """A model that gives a number for a pair of texts."""

    fits = ("text-classification",)

    def scores(
        self, query: str, texts: Sequence[str], truncation: TruncationChoice, max_length: int | None
    ) -> list[float]:
        encodings = [self.encode(query, text, truncation=truncation, max_length=max_length) for text in texts]
        found = self.function(np.array([row[0] for row in self.logits(encodings)], np.float32))
        return [float(each) for each in found]

    def each(self, items: list[Any], *args: Any) -> list[Any]:
        raise AssertionError("called through TextRanking")

    @cached_property
    def function(self) -> Any:
        """What is done to the model's number: as the checkpoint says, or a sigmoid. Raises TaskError."""
        own = self.config.get("sentence_transformers")
        saved = read_json(self.model.info.path / MODEL_CONFIG)
        given = (
            saved.get("activation_fn"), own.get("activation_fn") if isinstance(own, Mapping) else None,
            self.config.get("sbert_ce_default_activation_function"),
        )  # fmt: skip
        name = next((each for each in given if each is not None), "torch.nn.modules.activation.Sigmoid")
        kind = str(name).rsplit(".", 1)[-1]
        if not str(name).startswith("torch.nn.") or kind not in FUNCTIONS:
            raise TaskError(f"the checkpoint's scores go through {name}, and edgellm has {', '.join(FUNCTIONS)}")
        return FUNCTIONS[kind]
