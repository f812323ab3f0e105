"""Exact match and F1 of answers, as SQuAD's own script has them. No model is needed here."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

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
