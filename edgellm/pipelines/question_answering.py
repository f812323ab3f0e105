"""question-answering: the part of a context that answers a question; long contexts in windows that overlap.

Start and end scores become answers in pure functions on arrays; no model is needed there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgellm.errors import InputError, OptionError
from edgellm.package.manifest import Task
from edgellm.pipelines.base import check_counts
from edgellm.pipelines.encoder import EncoderPipeline
from edgellm.pipelines.scores import FloatArray, best, softmax
from edgellm.text.encodings import Encoding, windows
from edgellm.text.tokenizer import check_text
from edgellm.types import BoolArray

IMPOSSIBLE = 1_000_000.0  # the score of no answer where no window has one
MASKED = -10000.0

Example = Mapping[str, str]  # "question" and "context"


class QuestionAnswering(EncoderPipeline):
    """Gives {"score", "start", "end", "answer"}, start and end in characters of the context; with `top_k` above 1 a
    list, if there are several answers. What is asked are `question` and `context`, one of each, a list of questions on
    one context, or two lists; or mappings with both."""

    fits: ClassVar[tuple[Task, ...]] = ("question-answering",)
    batch_size = 8

    def read(self, args: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        rest = dict(options)
        question, context = rest.pop("question", None), rest.pop("context", None)
        if len(args) == 2:
            question, context = args
        elif len(args) == 1:
            return args[0], rest
        if len(args) > 2 or question is None or context is None:
            raise InputError(f"{self.task} takes question= and context=, or mappings with both")
        return examples(question, context), rest

    def shape(self, inputs: Any, results: list[Any], *, single: bool, given: Mapping[str, Any]) -> Any:
        return results[0] if len(results) == 1 else results

    def each(
        self,
        items: list[Any],
        *args: Any,
        top_k: int = 1,
        doc_stride: int | None = None,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
        max_question_len: object = None,
        padding: object = None,
    ) -> list[Any]:
        """Lengths are in tokens. A question and a window have `max_seq_len`, by default the model's most, up to 384;
        windows have `doc_stride` in common, by default half of that, up to 128; an answer has `max_answer_len` at most,
        and whole words if `align_to_words`. With `handle_impossible_answer` it may be "". The last two have no
        effect."""
        check_counts(top_k=top_k, max_answer_len=max_answer_len)
        length, stride = self._lengths(max_seq_len, doc_stride)
        cut = [self._windows(item, length, stride) for item in items]
        numbers = iter(self.span_logits([window for pieces in cut for window in pieces]))
        # Several spans can become the same words.
        count = top_k * 2 + 10 if align_to_words else top_k
        results = []
        for item, pieces in zip(items, cut, strict=True):
            spans = [
                likely_spans(*next(numbers), self._allowed(window), count=count, max_length=max_answer_len)
                for window in pieces
            ]
            answers = merged(answers_in(item["context"], pieces, spans, align_to_words=align_to_words))
            if handle_impossible_answer:
                answers.append(no_answer(spans))
            best = [asdict(answer) for answer in sorted(answers, key=lambda answer: -answer.score)[:top_k]]
            results.append(best[0] if len(best) == 1 else best)
        return results

    def _lengths(self, max_seq_len: int | None, doc_stride: int | None) -> tuple[int, int]:
        length = min(self.special.max_length, 384) if max_seq_len is None else max_seq_len
        stride = min(length // 2, 128) if doc_stride is None else doc_stride
        check_counts(max_seq_len=length)
        if stride > length:
            raise OptionError(f"doc_stride is {stride}, expected at most max_seq_len ({length})")
        return length, stride

    def _windows(self, item: Any, length: int, stride: int) -> list[Encoding]:
        check_example(item)
        return windows(self.tokenizer.encoding(item["question"], item["context"]), 1, length, stride)

    def _allowed(self, window: Encoding) -> BoolArray:
        """Where an answer may begin and end: the context's tokens, and the token that stands for "no answer"."""
        return np.asarray((window.texts == 1) | (window.ids == self.special.cls))


def examples(question: Any, context: Any) -> Any:
    """What is asked, as one mapping or a list of them. Raises InputError."""
    if isinstance(question, str) and isinstance(context, str):
        return {"question": question, "context": context}
    if isinstance(question, str) or not isinstance(question, Sequence):
        raise InputError("question is one text and context is not; give a list of questions for a list of contexts")
    contexts = [context] * len(question) if isinstance(context, str) else list(context)
    if len(contexts) != len(question):
        raise InputError(f"there are {len(question)} questions and {len(contexts)} contexts, expected as many of each")
    return [{"question": q, "context": c} for q, c in zip(question, contexts, strict=True)]


def check_example(item: Any) -> None:
    if not isinstance(item, Mapping) or not {"question", "context"} <= {*item}:
        raise InputError('expected {"question": ..., "context": ...}, or question= and context=')
    for name in ("question", "context"):
        check_text(item[name])
        if not item[name]:
            raise InputError(f"the {name} is empty")


@dataclass(frozen=True)
class Answer:
    """A part of the context, from the character `start` to before `end`."""

    score: float
    start: int
    end: int
    answer: str


@dataclass(frozen=True)
class Spans:
    """One window's candidates, tokens from `starts` to `ends`, both included, the likeliest first. `no_answer` is the
    probability that there is none, which the model puts on the first token."""

    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    scores: FloatArray
    no_answer: float


def likely_spans(start: FloatArray, end: FloatArray, allowed: BoolArray, *, count: int, max_length: int) -> Spans:
    """start, end: logits [tokens]. allowed: [tokens], where an answer may begin and end. max_length: tokens.

    A span's score is the product of the probabilities of its ends; of the `count` best, those that are allowed.
    """
    starts, ends = softmax(np.where(allowed, start, MASKED)), softmax(np.where(allowed, end, MASKED))
    no_answer = float(starts[0] * ends[0])
    starts[0] = ends[0] = 0.0
    scores = np.tril(np.triu(np.outer(starts, ends)), max_length - 1)
    first, last = np.unravel_index(best(scores.ravel(), count), scores.shape)
    kept = allowed[first] & allowed[last]
    first, last = first[kept], last[kept]
    return Spans(first, last, scores[first, last], no_answer)


def answers_in(
    context: str, windows: Sequence[Encoding], spans: Sequence[Spans], *, align_to_words: bool
) -> list[Answer]:
    """An answer for each span of each window; whole words if `align_to_words` and the tokens are parts of words."""
    answers = []
    for window, found in zip(windows, spans, strict=True):
        for first, last, score in zip(found.starts, found.ends, found.scores, strict=True):
            words = window.word_span(first, last) if align_to_words else None
            begin, end = words or window.span(first, last)
            answers.append(Answer(float(score), begin, end, context[begin:end]))
    return answers


def merged(answers: list[Answer]) -> list[Answer]:
    """Answers of the same words, whatever their case, are one: the first, with all their scores."""
    found: dict[str, Answer] = {}
    for answer in answers:
        key = answer.answer.lower()
        before = found.get(key)
        found[key] = answer if before is None else replace(before, score=before.score + answer.score)
    return list(found.values())


def no_answer(windows: list[Spans]) -> Answer:
    return Answer(min([IMPOSSIBLE, *(spans.no_answer for spans in windows)]), 0, 0, "")
