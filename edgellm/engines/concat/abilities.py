"""What graphs of other tools can be asked for.

Such graphs come from many versions of many tools, so it is found out by asking them. A graph that was traced with a
single token behind a past may see the future when it gets several; one without position ids may count a shorter row's
padding; one whose activations share a scale mixes its rows. Each ability is a comparison of two ways to compute the
same logits, made when it first matters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from edgellm.errors import ProviderError
from edgellm.package.manifest import CacheLayout
from edgellm.types import Logits, TokenArray

# Logits that two ways of computing give agree when they differ by less than this share of the largest.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "int8": 1e-2}
Step = Callable[[Sequence[int]], Logits]  # some of the rows, one token further: [rows, vocab]


class BatchingGraph(ABC):
    """A graph that runs rows together as far as each then gets what it would get by itself."""

    def __init__(self, layout: CacheLayout, vocab_size: int) -> None:
        self.layout = layout
        self.vocab_size = vocab_size

    @cached_property
    def takes_batches(self) -> bool:
        """Whether rows of one length get the same logits together as each by itself."""
        return self._rows_agree((3, 3))

    @cached_property
    def takes_lengths(self) -> bool:
        """The same for rows of different lengths."""
        return self._rows_agree((2, 5))

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Rows of these lengths, those together that may run together."""
        if len(lengths) == 1 or (len(set(lengths)) > 1 and self.takes_lengths and self.takes_batches):
            return [list(range(len(lengths)))]
        if not self.takes_batches:
            return [[row] for row in range(len(lengths))]
        return [[row for row, n in enumerate(lengths) if n == length] for length in sorted(set(lengths))]

    @abstractmethod
    def _begun(self, lengths: Sequence[int]) -> Step:
        """Rows of these lengths, anew."""

    def _rows_agree(self, lengths: Sequence[int]) -> bool:
        def apart() -> Logits:
            step = self._begun(lengths)
            return np.concatenate([step([row]) for row in range(len(lengths))])

        return agree(apart, lambda: self._begun(lengths)(range(len(lengths))), self.layout.dtype)

    def _tokens(self, count: int) -> TokenArray:
        """Different ones, from all over the vocabulary."""
        return np.linspace(self.vocab_size - 1, 0, count).astype(np.int64)


def agree(one_way: Callable[[], Logits], other_way: Callable[[], Logits], dtype: str) -> bool:
    """Whether two ways to compute the same give the same. What a graph refuses to compute is nothing that it can do;
    that it computes anything shows elsewhere."""
    expected = one_way()
    try:
        found = other_way()
    except ProviderError:
        return False
    limit = TOLERANCE[dtype] * float(np.abs(expected).max())
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= limit)
