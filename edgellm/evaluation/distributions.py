"""Two models' logits side by side, row by row. No model is needed here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.evaluation.results import Metric, mean, share
from edgellm.types import DoubleArray, Logits

BLOCK = 1 << 20  # numbers of each side in float64 at a time


@dataclass(frozen=True)
class ComparedRows:
    """What two models' distributions have to do with each other, [rows] each: KL(reference || candidate) in nats,
    whether both put the same entry first, and, where it was said which entry came true, its log-probability by either
    model."""

    divergence: DoubleArray
    same_first: npt.NDArray[np.bool_]
    reference: DoubleArray
    candidate: DoubleArray

    def means(self) -> dict[str, float]:
        """What the predictions file has of some rows."""
        return {"kl_divergence": float(self.divergence.mean()), "top1_agreement": float(self.same_first.mean())}


def compared(reference: Logits, candidate: Logits, targets: npt.NDArray[np.int64] | None = None) -> ComparedRows:
    """Compare two models' logits, [rows, entries] each. targets: [rows], the entries that came true."""
    step = max(1, BLOCK // reference.shape[1])
    parts = []
    for start in range(0, len(reference), step):
        part = slice(start, start + step)
        parts.append(_block(reference[part], candidate[part], None if targets is None else targets[part]))
    return joined(parts)


def joined(parts: Iterable[ComparedRows]) -> ComparedRows:
    """All parts' rows, one behind the other."""
    every = list(parts)
    empty: npt.NDArray[Any] = np.zeros(0)

    def column(name: str) -> npt.NDArray[Any]:
        return np.concatenate([empty, *(getattr(part, name) for part in every)])

    first = column("same_first").astype(np.bool_)
    return ComparedRows(column("divergence"), first, column("reference"), column("candidate"))


def log_softmax(logits: npt.NDArray[Any]) -> DoubleArray:
    """Log-probabilities along the last axis: the same shape, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def in_step(a: Iterable[Logits], b: Iterable[Logits]) -> Iterator[tuple[Logits, Logits]]:
    """Pair up the rows of two models that cut them into different pieces: pieces of the same rows."""
    left, right = iter(a), iter(b)
    one, other = next(left, None), next(right, None)
    while one is not None and other is not None:
        count = min(len(one), len(other))
        yield one[:count], other[:count]
        one = one[count:] if len(one) > count else next(left, None)
        other = other[count:] if len(other) > count else next(right, None)
    assert one is None, "both have the same rows"
    assert other is None, "both have the same rows"


def findings_of(rows: ComparedRows) -> tuple[dict[str, Metric], dict[str, Any]]:
    """Metrics and details that all models that give distributions have."""
    quantiles = {f"{share:g}": float(np.quantile(rows.divergence, share)) for share in (0.5, 0.9, 0.95, 0.99)}
    metrics = {
        "kl_divergence": mean(rows.divergence),
        "kl_divergence_max": Metric(float(rows.divergence.max())),
        "top1_agreement": share(rows.same_first),
    }
    return metrics, {"kl_divergence_quantiles": quantiles}


def _block(reference: Logits, candidate: Logits, targets: npt.NDArray[np.int64] | None) -> ComparedRows:
    p, q = log_softmax(reference), log_softmax(candidate)
    divergence = np.maximum((np.exp(p) * (p - q)).sum(axis=-1), 0.0)
    same = reference.argmax(axis=-1) == candidate.argmax(axis=-1)
    if targets is None:
        return ComparedRows(divergence, same, np.zeros(0), np.zeros(0))
    rows = np.arange(len(targets))
    return ComparedRows(divergence, same, p[rows, targets], q[rows, targets])
