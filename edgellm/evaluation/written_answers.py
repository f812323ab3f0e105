"""Answers that a model writes when it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgellm.evaluation.answers import AnswerEvaluator, Judged, answers_of, judged
from edgellm.evaluation.columns import Columns
from edgellm.evaluation.evaluator import Exercise, Generative, ItemResult
from edgellm.evaluation.records import Record
from edgellm.evaluation.writers import Writer
from edgellm.models.decoder import Model

# Of decoders and of encoder-decoders, with a context and without; the latter are T5's.
DECODER_PROMPTS = "{context}\n\nQuestion: {question}\nAnswer:", "Question: {question}\nAnswer:"
ENCODER_DECODER_PROMPTS = "question: {question} context: {context}", "question: {question}"


class WrittenAnswerEvaluator(AnswerEvaluator):
    """Judges what a model writes when it is asked. A decoder's answer ends with its line, unless it is asked as in a
    chat."""

    def __init__(
        self,
        model: Generative,
        columns: Columns,
        *,
        prompt: str | None = None,
        chat: bool = False,
        **options: Any,
    ) -> None:
        """`prompt` says how to ask; None has the context in it where there is one. `options` are those of the pipeline
        and of generation."""
        decoder = isinstance(model, Model)
        if decoder and not chat:
            options = {"stop_strings": ["\n"], **options}
        self._columns = columns
        usual = DECODER_PROMPTS if decoder else ENCODER_DECODER_PROMPTS
        self._templates = usual if prompt is None else (prompt, prompt)
        first = self._templates[0]
        self._writer = Writer.create(model, "text2text-generation", template=first, chat=chat, options=options)

    @property
    def settings(self) -> Mapping[str, Any]:
        return self._writer.settings

    def items(self, record: Record) -> Iterator[Exercise]:
        answers = answers_of(self._columns.value(record, "answers"), record.place)
        template = self._templates[0 if self._columns.has(record, "context") else 1]
        yield Exercise(self._writer.prompt(record, self._columns, template), answers, record.place)

    def run(self, items: Sequence[Exercise]) -> list[ItemResult[Judged]]:
        texts = self._writer.write([item.given for item in items])
        return [judged(item, text) for item, text in zip(items, texts, strict=True)]
