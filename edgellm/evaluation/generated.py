"""Translations, summaries and other texts made of texts, against expected ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from edgellm.errors import OptionError
from edgellm.evaluation.evaluator import Exercise, Generative, ItemResult
from edgellm.evaluation.records import Columns, Record
from edgellm.evaluation.results import ROUNDS, Findings
from edgellm.evaluation.text_scores import (
    BLEU_TOKENIZERS,
    check_libraries,
    exact_matches,
    summary_scores,
    translation_scores,
)
from edgellm.evaluation.writers import Writer

PROMPT = "{source}"


@dataclass(frozen=True)
class GeneratedText:
    """What the model wrote, and what it should have."""

    text: str
    targets: Sequence[str]


class TextEvaluator:
    """Judges generated texts by every score: BLEU, chrF, ROUGE, and how many are exactly one of the targets."""

    batch_size = 8
    task: ClassVar[str] = "text2text-generation"
    scores: ClassVar[tuple[str, ...]] = ("bleu", "rouge", "exact")

    def __init__(
        self,
        model: Generative,
        columns: Columns,
        *,
        prompt: str = PROMPT,
        chat: bool = False,
        bleu_tokenize: str = "13a",
        lowercase: bool = False,
        rouge_stemmer: bool = False,
        bootstrap: int = ROUNDS,
        **options: Any,
    ) -> None:
        """`options` are those of the pipeline and of generation."""
        if bleu_tokenize not in BLEU_TOKENIZERS:
            raise OptionError(f"bleu_tokenize is {bleu_tokenize!r}, expected one of {', '.join(BLEU_TOKENIZERS)}")
        check_libraries(self.scores, bleu_tokenize)
        self._columns = columns
        self._writer = Writer.create(model, self.task, template=prompt, chat=chat, options=options)
        self._bleu = {"tokenize": bleu_tokenize, "lowercase": lowercase, "bootstrap": bootstrap}
        self._stemmer = rouge_stemmer

    @property
    def settings(self) -> Mapping[str, Any]:
        return self._writer.settings

    def items(self, record: Record) -> Iterator[Exercise]:
        yield Exercise(self._writer.prompt(record, self._columns), self._columns.texts(record, "target"), record.place)

    def run(self, items: Sequence[Exercise]) -> list[ItemResult[GeneratedText]]:
        texts = self._writer.write([item.given for item in items])
        return [
            ItemResult(
                GeneratedText(text, item.right), {"place": item.place, "prediction": text, "targets": item.right}
            )
            for item, text in zip(items, texts, strict=True)
        ]

    def findings(self, seen: Sequence[GeneratedText]) -> Findings:
        texts, targets = [one.text for one in seen], [one.targets for one in seen]
        found = []
        if "bleu" in self.scores:
            found.append(translation_scores(texts, targets, **self._bleu))  # type: ignore[arg-type]
        if "rouge" in self.scores:
            found.append(summary_scores(texts, targets, stemmer=self._stemmer))
        if "exact" in self.scores:
            found.append(exact_matches(texts, targets))
        return together(found)


class TranslationEvaluator(TextEvaluator):
    task = "translation"
    scores = ("bleu",)


class SummaryEvaluator(TextEvaluator):
    task = "summarization"
    scores = ("rouge",)


def together(found: Sequence[Findings]) -> Findings:
    """All metrics and details as one; signatures, which several have, stand side by side."""
    metrics = {name: metric for one in found for name, metric in one.metrics.items()}
    details: dict[str, Any] = {name: value for one in found for name, value in one.details.items()}
    signatures = {name: text for one in found for name, text in one.details.get("signatures", {}).items()}
    return Findings(metrics, {**details, **({"signatures": signatures} if signatures else {})})
