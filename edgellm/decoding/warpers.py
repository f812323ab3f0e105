"""Logits warpers: which tokens sampling may draw from, and how sharply.

Pure functions on `scores` [rows, vocab] float32. Each returns scores of the same shape, excluded tokens at -inf; the
input is not written to. `keep` is the number of best tokens that stay in any case. The numbers are those of the
transformers class named in each docstring; where transformers leaves open which of several equal tokens go, the lower
token ids stay. Excluded tokens are left out of all sorting, so a filter after top_k costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgellm.decoding.choice import at_least_kth, kth_largest, log_softmax, softmax
from edgellm.decoding.processors import MINUS_INFINITY, Scores

Row = npt.NDArray[np.float32]  # the scores of one row that are not excluded yet
RowMask = npt.NDArray[np.bool_]


def temperature(scores: Scores, value: float) -> Scores:
    """Divide by `value`: below 1 sharper, above 1 flatter (TemperatureLogitsWarper)."""
    return scores / np.float32(value)


def top_k(scores: Scores, k: int, keep: int = 1) -> Scores:
    """Keep the k best tokens and those that equal the k-th (TopKLogitsWarper)."""
    count = min(max(k, keep), scores.shape[1])
    result = np.full_like(scores, MINUS_INFINITY)
    for row, row_scores in enumerate(scores):
        kept = at_least_kth(row_scores, count)
        result[row, kept] = row_scores[kept]
    return result


def top_p(scores: Scores, mass: float, keep: int = 1) -> Scores:
    """Keep the fewest best tokens whose probabilities sum to `mass` (TopPLogitsWarper)."""

    def allowed(row: Row) -> RowMask:
        cumulative = np.cumsum(softmax(np.sort(row)), dtype=np.float64).astype(np.float32)
        count = int(np.count_nonzero(cumulative > np.float32(1 - mass)))
        return largest(row, max(count, keep))

    return _filter(scores, allowed)


def min_p(scores: Scores, share: float, keep: int = 1) -> Scores:
    """Keep tokens at least `share` as probable as the best one (MinPLogitsWarper)."""

    def allowed(row: Row) -> RowMask:
        probabilities = softmax(row)
        mask: RowMask = probabilities >= np.float32(share) * probabilities.max()
        return mask | largest(row, keep)

    return _filter(scores, allowed)


def typical_p(scores: Scores, mass: float, keep: int = 1) -> Scores:
    """Keep the tokens whose surprise is closest to the entropy, up to `mass` of probability (TypicalLogitsWarper)."""

    def allowed(row: Row) -> RowMask:
        logprobs = log_softmax(row)
        probabilities = np.exp(logprobs)
        distance = np.abs(-logprobs + np.sum(logprobs * probabilities))
        order = np.argsort(distance, kind="stable")
        cumulative = np.cumsum(softmax(row[order]), dtype=np.float64).astype(np.float32)
        last = min(int(np.count_nonzero(cumulative < np.float32(mass))), len(row) - 1)
        typical: RowMask = distance <= distance[order[last]]
        typical[order[:keep]] = True
        return typical

    return _filter(scores, allowed)


def epsilon_cutoff(scores: Scores, epsilon: float, keep: int = 1) -> Scores:
    """Keep tokens of probability `epsilon` or more (EpsilonLogitsWarper)."""
    return _filter(scores, lambda row: (softmax(row) >= np.float32(epsilon)) | _not_below_best(row, keep))


def eta_cutoff(scores: Scores, epsilon: float, keep: int = 1) -> Scores:
    """Filter like `epsilon_cutoff`, with a lower bar where the distribution is flat (EtaLogitsWarper)."""

    def allowed(row: Row) -> RowMask:
        logprobs = log_softmax(row)
        entropy = -np.sum(logprobs * np.exp(logprobs))
        bar = min(np.float32(epsilon), np.sqrt(np.float32(epsilon)) * np.exp(-entropy))
        probable: RowMask = softmax(row) >= bar
        return probable | _not_below_best(row, keep)

    return _filter(scores, allowed)


def largest(row: Row, count: int) -> RowMask:
    """Marks the `count` largest of `row`, the first ones where several are equal."""
    if count >= len(row):
        return np.ones(len(row), dtype=np.bool_)
    threshold = kth_largest(row, count)
    mask: RowMask = row > threshold
    mask[np.flatnonzero(row == threshold)[: count - np.count_nonzero(mask)]] = True
    return mask


def _not_below_best(row: Row, keep: int) -> RowMask:
    """Marks the `keep` best and those that equal the last of them."""
    mask: RowMask = row >= kth_largest(row, min(keep, len(row)))
    return mask


def _filter(scores: Scores, allowed: Callable[[Row], RowMask]) -> Scores:
    """Apply `allowed` to each row's remaining scores."""
    result = np.full_like(scores, MINUS_INFINITY)
    for row, row_scores in enumerate(scores):
        remaining = np.flatnonzero(row_scores > MINUS_INFINITY)
        if len(remaining):
            chosen = remaining[allowed(row_scores[remaining])]
            result[row, chosen] = row_scores[chosen]
    return result
