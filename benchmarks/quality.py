"""How far each system's next-token distributions are from float32's, on held-out text."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgellm.text.tokenizer import Tokenizer
from edgellm_export.calibration.texts import evaluation_tokens
from measuring import Samples
from models import Model
from workers import Failed, Worker

CHUNK = 512
ROWS = 64  # positions compared at once


def measure_quality(workers: Sequence[Worker], reference: Worker, model: Model, tokens: int, samples: Samples) -> None:
    """Adds "KL divergence" and "top-1 agreement" of each system against the reference, over chunks of 512 tokens of
    text that no calibration saw. Each chunk starts from an empty context."""
    chunks = held_out(model, tokens)
    totals: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for number, ids in enumerate(chunks, 1):
            expected = _logits(reference, ids, Path(directory) / "reference.npy")
            for worker in workers:
                if worker is reference or f"{worker.name}, logits" in samples.failures:
                    continue
                try:
                    actual = _logits(worker, ids, Path(directory) / "system.npy")
                except Failed as failure:
                    samples.fail(worker.name, "logits", failure)
                else:
                    totals.setdefault(worker.name, []).append(divergence(expected, actual))
            print(f"text {number} of {len(chunks)}", file=sys.stderr)
    for name, pairs in totals.items():
        if f"{name}, logits" not in samples.failures:
            divergences, agreements = zip(*pairs, strict=True)
            samples.add(name, "KL divergence", float(np.mean(divergences)))
            samples.add(name, "top-1 agreement", float(np.mean(agreements)))


def held_out(model: Model, tokens: int) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(model.checkpoint() / "tokenizer.json")
    sequences, _ = evaluation_tokens(tokenizer, sys.maxsize, CHUNK, tokens)
    return [sequence.tolist() for sequence in sequences]


def divergence(expected: np.ndarray, actual: np.ndarray) -> tuple[float, float]:
    """Mean over the positions of KL(expected || actual) in nats, and the share of positions whose likeliest token is
    the same. Both [length, vocab] logits; padding of the vocabulary beyond the reference's is left out."""
    actual = actual[:, : expected.shape[1]]
    total, agreeing = 0.0, 0
    for start in range(0, len(expected), ROWS):
        p, q = (_log_softmax(logits[start : start + ROWS]) for logits in (expected, actual))
        total += float((np.exp(p) * (p - q)).sum())
        agreeing += int((p.argmax(axis=1) == q.argmax(axis=1)).sum())
    return total / len(expected), agreeing / len(expected)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    return np.asarray(values - np.log(np.exp(values).sum(axis=1, keepdims=True)))


def _logits(worker: Worker, ids: list[int], out: Path) -> np.ndarray:
    worker.write_logits(ids, out)
    return np.asarray(np.load(out))
