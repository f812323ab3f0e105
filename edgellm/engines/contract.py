"""What every engine can do: rows of tokens in, logits out, and rows that come and go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from edgellm.decoding.decoder import READING, Reading, Sources
from edgellm.errors import ContextOverflowError
from edgellm.types import Logits, TokenArray


class RowEngine(ABC):
    """A model and what it holds of its rows. Not for two threads at once, and of no use after an error, but where
    a hook raised it. Implements `decoding.Decoder`."""

    @property
    @abstractmethod
    def rows(self) -> int: ...

    @property
    @abstractmethod
    def holds_one(self) -> bool:
        """Whether a prefill can take over what was read last: a single prompt, or a single source."""

    @property
    @abstractmethod
    def cache_bytes(self) -> int:
        """Of the rows' own tokens, without the keys and values of sources."""

    @abstractmethod
    def prefill(self, prompts: Sequence[TokenArray], sources: Sources = None, reading: Reading = READING) -> Logits:
        """Start over with a row for each prompt: [rows, vocab] of their last tokens."""

    @abstractmethod
    def insert(self, prompt: TokenArray, source: TokenArray | None = None, reading: Reading = READING) -> Logits:
        """Read a new row behind those that go on: [1, vocab] of its last token. Where its progress raises, the
        others are as they were."""

    @abstractmethod
    def decode(self, tokens: TokenArray) -> Logits:
        """[rows, vocab] float32, until the next call. Raises ContextOverflowError where a row is full."""

    @abstractmethod
    def reorder(self, parents: TokenArray) -> None:
        """New row i continues old row parents[i]."""

    def drop(self, rows: Sequence[int]) -> None:
        """Take rows out; those behind them move up."""
        self.reorder(np.setdiff1d(np.arange(self.rows), np.array(rows, np.int64)))

    @abstractmethod
    def all_logits(self, tokens: TokenArray, source: TokenArray | None = None) -> Iterator[Logits]:
        """Start over: [chunk, vocab] behind each token of one sequence, chunk by chunk."""


def target_overflow(longest: int) -> ContextOverflowError:
    """Of an encoder-decoder's target that has no room for another token."""
    return ContextOverflowError(
        f"the target has reached the model's longest of {longest} tokens; ask for fewer new tokens"
    )
