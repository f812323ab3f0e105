"""Questions whose answers are known: what data has of them, and how answers are judged. No model is needed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.errors import InputError
from edgellm.evaluation.base import Outcome
from edgellm.evaluation.results import Findings, mean
from edgellm.evaluation.squad import exact_match, f1


@dataclass(frozen=True)
class Asked:
    """`example`: what the model gets. `answers`: those that are right, none where there is no answer."""

    example: Any
    answers: Sequence[str]
    place: str


@dataclass(frozen=True)
class Judged:
    exact: float
    f1: float
    answerable: bool


def answers_of(value: Any, place: str) -> list[str]:
    """{"text": [...]} as data sets have it, a list of texts or of {"text": ...} as SQuAD's files have it, or one text.
    Raises InputError."""
    found = value.get("text") if isinstance(value, Mapping) else value
    entries = [found] if isinstance(found, str) else found
    if isinstance(entries, list):
        texts = [one.get("text") if isinstance(one, Mapping) else one for one in entries]
        if all(isinstance(text, str) for text in texts):
            return [text for text in texts if text]
    raise InputError(f'{place}: the answers are no text, no list of texts, and no {{"text": [...]}}')


def judged(item: Asked, answer: str) -> Outcome[Judged]:
    scores = Judged(exact_match(answer, item.answers), f1(answer, item.answers), bool(item.answers))
    line = {"prediction": answer, "answers": item.answers, "exact_match": scores.exact, "f1": scores.f1}
    return Outcome(scores, {"place": item.place, **line})


def answer_findings(seen: Sequence[Judged]) -> Findings:
    """0 to 100, as SQuAD's script has them; also of the questions with and without an answer, where there are both."""
    metrics = {"exact_match": mean([s.exact for s in seen], 100), "f1": mean([s.f1 for s in seen], 100)}
    groups = {name: [s for s in seen if s.answerable is which] for name, which in (("answer", True), ("none", False))}
    if all(groups.values()):
        for name, group in groups.items():
            metrics[f"exact_match_{name}"] = mean([s.exact for s in group], 100)
            metrics[f"f1_{name}"] = mean([s.f1 for s in group], 100)
    return Findings(metrics, {"questions": len(seen), "without_answer": len(groups["none"])})
