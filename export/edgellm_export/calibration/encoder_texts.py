"""Built-in or given text as an encoder reads it: paragraphs of their own lengths, each with its special tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgellm.errors import ExportError
from edgellm.text.encodings import Encoding, truncated
from edgellm.text.tokenizer import Tokenizer

SHORTEST = 8  # tokens


def paragraphs(texts: Sequence[str], tokenizer: Tokenizer, vocab_size: int, length: int, count: int) -> list[Encoding]:
    """Encodings of at most `length` tokens, about `count` in all, spread over the texts."""
    found = []
    for text in texts:
        for paragraph in text.split("\n\n"):
            encoding = tokenizer.encoding(" ".join(paragraph.split()))
            if len(encoding) >= min(SHORTEST, length) and encoding.ids.max() < vocab_size:
                found.append(truncated(encoding, length))
    kept: list[Encoding] = []
    order = np.random.default_rng(0).permutation(len(found))
    for place in order.tolist():
        if sum(map(len, kept)) >= count:
            break
        kept.append(found[place])
    return kept


def random_tokens(vocab_size: int, length: int, count: int) -> list[Encoding]:
    """Seeded, for a checkpoint without a tokenizer."""
    rng = np.random.default_rng(0)
    lengths = [length, max(1, length // 2), max(1, length // 3)]
    found: list[Encoding] = []
    while sum(map(len, found)) < count:
        size = lengths[len(found) % len(lengths)]
        zeros = np.zeros(size, np.int64)
        found.append(
            Encoding(rng.integers(0, vocab_size, size), zeros, zeros > 0, np.zeros((size, 2), np.int64), zeros, zeros)
        )
    return found


def check_given(sequences: Sequence[Encoding], origin: str, *, given: bool) -> None:
    """Raises ExportError where text that the user gave has no paragraph of SHORTEST tokens."""
    if given and not sequences:
        raise ExportError(f"{origin} has no paragraph of {SHORTEST} tokens; calibrate with more text, like 2,000 words")
