"""Questions whose answers are known: what data has of them, and how answers are judged. No model is needed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.errors import InputError
from edgellm.evaluation.evaluator import Exercise, ItemResult
from edgellm.evaluation.results import Findings, Metric, mean, share
from edgellm.evaluation.squad import exact_match, f1


@dataclass(frozen=True)
class Judged:
    """The scores of one answer, 0 to 1, and whether its question had one."""

    exact: float
    f1: float
    answerable: bool


def answers_of(value: Any, place: str) -> list[str]:
    """The right answers that a column holds: {"text": [...]} as data sets have it, a list of texts or of {"text": ...}
    as SQuAD's files have it, or one text. Raises InputError."""
    found = value.get("text") if isinstance(value, Mapping) else value
    entries = [found] if isinstance(found, str) else found
    if isinstance(entries, list):
        texts = [one.get("text") if isinstance(one, Mapping) else one for one in entries]
        if all(isinstance(text, str) for text in texts):
            return [text for text in texts if text]
    raise InputError(f'{place}: the answers are no text, no list of texts, and no {{"text": [...]}}')


def judged(item: Exercise, answer: str) -> ItemResult[Judged]:
    scores = Judged(exact_match(answer, item.right), f1(answer, item.right), bool(item.right))
    line = {"prediction": answer, "answers": item.right, "exact_match": scores.exact, "f1": scores.f1}
    return ItemResult(scores, {"place": item.place, **line})


class AnswerEvaluator:
    """Exact match and F1, 0 to 100, as SQuAD's script has them. Where some questions have an answer and some have none,
    each kind's own scores are there too."""

    batch_size = 8

    def findings(self, seen: Sequence[Judged]) -> Findings:
        with_answer, without = [s for s in seen if s.answerable], [s for s in seen if not s.answerable]
        metrics = _metrics(seen)
        if with_answer and without:
            metrics |= _metrics(with_answer, "_answer") | _metrics(without, "_none")
        return Findings(metrics, {"questions": len(seen), "without_answer": len(without)})


def _metrics(seen: Sequence[Judged], suffix: str = "") -> dict[str, Metric]:
    return {
        f"exact_match{suffix}": share([s.exact for s in seen], factor=100),
        f"f1{suffix}": mean([s.f1 for s in seen], most=1, factor=100),
    }
