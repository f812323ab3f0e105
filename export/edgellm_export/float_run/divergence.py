"""Comparing two models' logits without holding either whole: statistics that grow one slice of the vocabulary at a
time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgellm.types import DoubleArray, FloatArray

SLICE = 8192  # vocabulary entries that are made for a comparison at a time
BLOCK = 128  # columns at a time, whose float64 copies stay in the processor's cache


@dataclass
class LogSumExp:
    """Running log(sum(exp(x))) per row, with the sum of weights x value kept under the same shift."""

    peak: DoubleArray
    total: DoubleArray
    weighted: DoubleArray

    @classmethod
    def empty(cls, rows: int) -> LogSumExp:
        return cls(np.full(rows, -np.inf), np.zeros(rows), np.zeros(rows))

    def add(self, logits: DoubleArray, values: DoubleArray | None = None) -> None:
        """logits: [rows, slice]. `values`: what to average under softmax(logits), same shape."""
        peak = np.maximum(self.peak, logits.max(axis=1))
        shrink = np.exp(self.peak - peak)
        weights = np.exp(logits - peak[:, None])
        self.total = self.total * shrink + weights.sum(axis=1)
        self.weighted = self.weighted * shrink + (0.0 if values is None else (weights * values).sum(axis=1))
        self.peak = peak

    @property
    def value(self) -> DoubleArray:
        return self.peak + np.log(self.total)

    @property
    def mean(self) -> DoubleArray:
        return np.asarray(self.weighted / self.total)


@dataclass
class Comparison:
    """Reference p against candidate q over [rows, vocab] logits, fed in slices of the vocabulary."""

    targets: npt.NDArray[np.int64]  # [rows] the token that follows, -1 for none
    p: LogSumExp = field(init=False)
    q: LogSumExp = field(init=False)
    best: tuple[DoubleArray, DoubleArray] = field(init=False)  # running maxima of p and q
    choice: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] = field(init=False)
    target_logits: tuple[DoubleArray, DoubleArray] = field(init=False)

    def __post_init__(self) -> None:
        rows = len(self.targets)
        self.p, self.q = LogSumExp.empty(rows), LogSumExp.empty(rows)
        self.best = (np.full(rows, -np.inf), np.full(rows, -np.inf))
        self.choice = (np.zeros(rows, np.int64), np.zeros(rows, np.int64))
        self.target_logits = (np.zeros(rows), np.zeros(rows))

    def add(self, start: int, reference: FloatArray, candidate: FloatArray) -> None:
        """Logits [rows, slice] of the tokens from `start` on."""
        for at in range(0, reference.shape[1], BLOCK):
            block = slice(at, at + BLOCK)
            self._add_block(start + at, reference[:, block].astype(np.float64), candidate[:, block].astype(np.float64))

    def _add_block(self, start: int, p: DoubleArray, q: DoubleArray) -> None:
        self.p.add(p, p - q)
        self.q.add(q)
        inside = (self.targets >= start) & (self.targets < start + p.shape[1])
        for side, logits in enumerate((p, q)):
            top = logits.argmax(axis=1)
            value = logits[np.arange(len(top)), top]
            better = value > self.best[side]
            self.choice[side][better] = top[better] + start
            np.maximum(self.best[side], value, out=self.best[side])
            self.target_logits[side][inside] = logits[inside, self.targets[inside] - start]

    def kl_divergence(self) -> DoubleArray:
        """KL(p || q) per row, nats."""
        return np.maximum(self.p.mean - self.p.value + self.q.value, 0)

    def agreement(self) -> npt.NDArray[np.bool_]:
        """Per row, whether both put the same token first."""
        return np.asarray(self.choice[0] == self.choice[1])

    def perplexity(self) -> tuple[float, float]:
        """exp of the mean negative log-probability of the targets, for p and q."""
        known = self.targets >= 0
        losses = [
            (lse.value - logits)[known].mean()
            for lse, logits in ((self.p, self.target_logits[0]), (self.q, self.target_logits[1]))
        ]
        return float(np.exp(losses[0])), float(np.exp(losses[1]))
