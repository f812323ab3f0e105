"""English text that every Python carries: the language reference's topics. No download, nothing of the user's."""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edgellm.errors import ExportError
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import TokenArray

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
    def encode(self, text: str) -> TokenArray: ...


def evaluation_tokens(
    tokenizer: Encoder | None, vocab_size: int, length: int, count: int
) -> tuple[list[TokenArray], str]:
    """Sequences of `length` tokens, at least `count` in all where there is text enough, and what they are. Without a
    tokenizer: seeded random tokens."""
    if tokenizer is None:
        rng = np.random.default_rng(0)
        return [rng.integers(0, vocab_size, length) for _ in range(-(-count // length))], "random tokens"
    return _sequences(topics(EVALUATION_TOPICS), tokenizer, vocab_size, length, count), "English text"


@dataclass(frozen=True)
class CalibrationText:
    """`origin`: what it is, for the report. `given`: by the user."""

    texts: Sequence[str]
    origin: str
    given: bool = False

    def tokens(self, tokenizer: Encoder, vocab_size: int, length: int, count: int) -> list[TokenArray]:
        """Sequences of `length` tokens, at least `count` in all or what there is. Raises ExportError where given text
        is too short for one."""
        sequences = _sequences(self.texts, tokenizer, vocab_size, length, count)
        if self.given and not sequences:
            raise ExportError(
                f"{self.origin} is shorter than {length} tokens; calibrate with more text, like 2,000 words"
            )
        return sequences


def calibration_text(file: Path | None) -> CalibrationText:
    """What `file` holds, or else built-in English that the evaluation does not use. Raises ExportError where the file
    cannot be read as UTF-8."""
    if file is None:
        return CalibrationText(topics(CALIBRATION_TOPICS), "English text")
    try:
        return CalibrationText([file.read_text(encoding="utf-8")], f"text from {file.name}", given=True)
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(
            f"{file}: cannot be read as calibration text ({error}); give a file of plain text in UTF-8"
        ) from error


def topics(names: Sequence[str]) -> list[str]:
    """The texts of these topics of the language reference."""
    return [pydoc_data.topics.topics.get(name, "") for name in names]


def _sequences(texts: Sequence[str], tokenizer: Encoder, vocab_size: int, length: int, count: int) -> list[TokenArray]:
    sequences = []
    for text in texts:
        ids = tokenizer.encode(text)
        ids = ids[ids < vocab_size]
        sequences += [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)]
    spread = np.linspace(0, len(sequences) - 1, min(-(-count // length), len(sequences))).astype(int)
    return [sequences[i] for i in dict.fromkeys(spread.tolist())]


def tokenized(work: Path, text: CalibrationText, vocab_size: int, length: int, count: int) -> list[TokenArray]:
    """`text` through the tokenizer in `work`, in sequences of `length`, about `count` tokens; none without one."""
    file = work / "tokenizer.json"
    if not file.is_file():
        return []
    return text.tokens(Tokenizer.from_file(file), vocab_size, length, count)
