"""English text that every Python carries: the language reference's topics. No download, nothing of the user's."""

from __future__ import annotations

import pydoc_data.topics
from typing import Protocol

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int64]

# Prose rather than grammar listings. No topic is in both.
EVALUATION_TOPICS = (
    "typesmapping",
    "specialnames",
    "exceptions",
    "execmodel",
    "formatstrings",
    "types",
    "class",
    "try",
)


CALIBRATION_TOPICS = (
    "specialattrs",
    "calls",
    "numbers",
    "strings",
    "debugger",
    "with",
    "function",
    "dynamic-features",
    "attribute-access",
    "subscriptions",
    "shifting",
    "assert",
)


class Encoder(Protocol):
    def encode(self, text: str) -> Tokens: ...


def evaluation_tokens(tokenizer: Encoder | None, vocab_size: int, length: int, count: int) -> tuple[list[Tokens], str]:
    """Sequences of `length` tokens, about `count` in all, and what they are. Without a tokenizer: seeded random
    tokens."""
    if tokenizer is None:
        rng = np.random.default_rng(0)
        return [rng.integers(0, vocab_size, length) for _ in range(max(1, count // length))], "random tokens"
    return _sequences(EVALUATION_TOPICS, tokenizer, vocab_size, length, count), "English text"


def calibration_tokens(tokenizer: Encoder, vocab_size: int, length: int, count: int) -> list[Tokens]:
    """Sequences of `length` tokens, about `count` in all, of other texts than the evaluation's."""
    return _sequences(CALIBRATION_TOPICS, tokenizer, vocab_size, length, count)


def _sequences(names: tuple[str, ...], tokenizer: Encoder, vocab_size: int, length: int, count: int) -> list[Tokens]:
    topics = pydoc_data.topics.topics
    sequences = []
    for name in names:
        ids = tokenizer.encode(topics.get(name, ""))
        ids = ids[ids < vocab_size]
        sequences += [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)]
    spread = np.linspace(0, len(sequences) - 1, min(max(1, count // length), len(sequences))).astype(int)
    return [sequences[i] for i in dict.fromkeys(spread.tolist())]
