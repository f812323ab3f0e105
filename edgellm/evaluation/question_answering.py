"""Answers to questions, which an encoder finds in a context, or a model writes when it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgellm.evaluation.answers import AnswerEvaluator, Judged, answers_of, judged
from edgellm.evaluation.evaluator import Exercise, Generative, ItemResult, tokenizer_of
from edgellm.evaluation.records import Columns, Record
from edgellm.evaluation.writers import Writer
from edgellm.models.decoder import Model
from edgellm.models.encoder import EncoderModel
from edgellm.pipelines import pipeline

MAX_ANSWER = 30  # tokens, as in SQuAD's scripts


class ExtractedAnswerEvaluator(AnswerEvaluator):
    """Judges the parts of contexts that the question-answering pipeline gives."""

    def __init__(
        self,
        model: EncoderModel,
        columns: Columns,
        *,
        handle_impossible_answer: bool | None = None,
        max_answer_len: int = MAX_ANSWER,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
    ) -> None:
        """handle_impossible_answer: whether the model may say that there is no answer; with None it may where the data
        has such questions. The other options are the pipeline's."""
        tokenizer_of(model)
        self._columns = columns
        self._pipeline = pipeline("question-answering", model)
        self._impossible = handle_impossible_answer
        self._unanswerable_seen = False
        self._options = {"max_answer_len": max_answer_len, "max_seq_len": max_seq_len, "doc_stride": doc_stride}

    @property
    def settings(self) -> Mapping[str, Any]:
        impossible = self._unanswerable_seen if self._impossible is None else self._impossible
        return {"handle_impossible_answer": impossible, **self._options}

    def items(self, record: Record) -> Iterator[Exercise]:
        example = {role: self._columns.text(record, role) for role in ("question", "context")}
        answers = answers_of(self._columns.value(record, "answers"), record.place)
        self._unanswerable_seen |= not answers
        yield Exercise(example, answers, record.place)

    def run(self, items: Sequence[Exercise]) -> list[ItemResult[Judged]]:
        found = self._pipeline([item.given for item in items], **self.settings)
        results = [found] if len(items) == 1 else found
        # Where no part of the context can be an answer, the pipeline has an empty list.
        answers = [result["answer"] if result else "" for result in results]
        return [judged(item, answer) for item, answer in zip(items, answers, strict=True)]


# Of decoders and of encoder-decoders, with a context and without; the latter are T5's.
DECODER_PROMPTS = "{context}\n\nQuestion: {question}\nAnswer:", "Question: {question}\nAnswer:"
ENCODER_DECODER_PROMPTS = "question: {question} context: {context}", "question: {question}"


class WrittenAnswerEvaluator(AnswerEvaluator):
    """Judges what a model writes when it is asked. A decoder's answer ends with its line, unless it is asked as in a
    chat."""

    def __init__(
        self, model: Generative, columns: Columns, *, prompt: str | None = None, chat: bool = False, **options: Any
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
