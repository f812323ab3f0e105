"""Start and end scores to answers. Pure functions on arrays; no model is needed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.pipelines.scores import FloatArray, best, softmax
from edgellm.text.encodings import Encoding
from edgellm.types import BoolArray

IMPOSSIBLE = 1_000_000.0  # the score of no answer where no window has one
MASKED = -10000.0


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
        found[key] = (
            answer if before is None else Answer(before.score + answer.score, before.start, before.end, before.answer)
        )
    return list(found.values())


def no_answer(windows: list[Spans]) -> Answer:
    return Answer(min([IMPOSSIBLE, *(spans.no_answer for spans in windows)]), 0, 0, "")
