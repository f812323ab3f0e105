"""What every engine can do: rows of tokens in, logits out, and rows that come and go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence

import numpy as np

from edgellm.decoding.decoder import HEADROOM, READING, Reading, Sources
from edgellm.errors import ContextOverflowError
from edgellm.types import Array, Logits, TokenArray

Known = tuple[
    Array, ...
]  # what a cache has of some tokens, layer by layer: keys and values, [heads, tokens, size] each


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
    def read(
        self,
        prompt: TokenArray,
        source: TokenArray | None = None,
        *,
        headroom: int = HEADROOM,
        known: Sequence[Known] = (),
    ) -> Generator[Logits | None]:
        """A new row behind the others, piece by piece: None behind each piece but the last, then [1, vocab] of the
        prompt's last token. Between pieces the others go on without it; it stays the last row. Closed before its end,
        it is taken out. `known`: the keys and values of the prompt's first tokens, as `taken` gave them."""

    @abstractmethod
    def decode(self, tokens: TokenArray) -> Logits:
        """[rows, vocab] float32, until the next call, of all rows, or of all but one that is being read. Raises
        ContextOverflowError where a row is full."""

    @abstractmethod
    def reorder(self, parents: TokenArray) -> None:
        """New row i continues old row parents[i]."""

    @property
    def gives_cache(self) -> bool:
        """Whether keys and values of a row can be taken out, to be given to another row."""
        return False

    def taken(self, row: int, start: int, stop: int) -> Known:
        """A copy of what a row's cache has of the tokens from `start` to `stop`."""
        raise NotImplementedError

    def drop(self, rows: Sequence[int]) -> None:
        """Take rows out; those behind them move up."""
        self.reorder(np.setdiff1d(np.arange(self.rows), np.array(rows, np.int64)))

    @abstractmethod
    def all_logits(self, tokens: TokenArray, source: Array | None = None) -> Iterator[Logits]:
        """Start over: [chunk, vocab] behind each token of one sequence, chunk by chunk."""


def target_overflow(longest: int) -> ContextOverflowError:
    """Of an encoder-decoder's target that has no room for another token."""
    return ContextOverflowError(
        f"the target has reached the model's longest of {longest} tokens; ask for fewer new tokens"
    )
