"""Questions whose answers are known: what data has of them, and exact match and F1, as SQuAD's own script has them. No
model is needed here."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.errors import InputError
from edgellm.evaluation.evaluator import Exercise, ItemResult
from edgellm.evaluation.results import Findings, Metric, mean, share

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """The answer in lower case, without ASCII punctuation and English articles, single spaces between words."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def exact_match(answer: str, right: Sequence[str]) -> float:
    """1.0 where the answer is one of those that are right, else 0.0."""
    return _best(answer, right, lambda a, b: float(a == b))


def f1(answer: str, right: Sequence[str]) -> float:
    """F1, 0 to 1, of the answer's words against those of the right answer that fits best."""
    return _best(answer, right, _overlap)


def _best(answer: str, right: Sequence[str], score: Callable[[str, str], float]) -> float:
    """The best score among the right answers. One without a word counts only where there is no other; where there is no
    right answer, "" is."""
    wanted = [text for text in map(normalized, right) if text] or [""]
    found = normalized(answer)
    return max(score(found, text) for text in wanted)


def _overlap(found: str, wanted: str) -> float:
    a, b = found.split(), wanted.split()
    if not a or not b:
        return float(a == b)
    shared = sum((Counter(a) & Counter(b)).values())
    return 2 * shared / (len(a) + len(b))


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
