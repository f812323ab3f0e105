"""What an engine's cache holds: the tokens of each row, and how many of them a prompt can take over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.types import TokenArray

# A token alone behind a past takes attention's decoding kernel, which adds in another order. In an int8 package that
# difference grows, rounding by rounding, to the size of the quantization error; so a prompt is never cut that small.
MIN_CHUNK = 2  # tokens


@dataclass
class HeldRow:
    """`read` tokens came as a prompt; decoding added the next. `long_table`: the keys are of the rotary table for
    sequences longer than the manifest's `recompute_beyond`."""

    tokens: list[int]
    read: int
    long_table: bool

    def copy(self) -> HeldRow:
        return HeldRow(list(self.tokens), self.read, self.long_table)


class History:
    """The rows of an engine, kept in step with its cache.

    `reuse_generated`: let prompts take over generated tokens even where decoding leaves other keys and values behind.
    """

    def __init__(self, manifest: Manifest[DecoderFacts], reuse_generated: bool) -> None:
        self._rope = manifest.model.rope
        self._rounds_apart = manifest.decoding_rounds_apart
        self.reuse_generated = reuse_generated
        self.rows: list[HeldRow] = []

    def begin(self, prompts: Sequence[TokenArray], cached: int = 0) -> None:
        """Prompts that are being read; of the only one, `cached` tokens are those of the only row, taken over. What is
        read behind generated tokens counts as generated: it is computed from theirs."""
        rows = [self._read(prompt) for prompt in prompts]
        if cached and cached > self.rows[0].read:
            rows[0].read = self.rows[0].read
        self.rows = rows

    def insert(self, prompt: TokenArray) -> None:
        """A prompt that is being read, as a row behind the others."""
        self.rows.append(self._read(prompt))

    def append(self, tokens: TokenArray) -> None:
        """One token to each of the first rows."""
        for row, token in zip(self.rows, tokens.tolist(), strict=False):
            row.tokens.append(token)
            row.long_table = self._is_long(len(row.tokens))

    def extend(self, tokens: TokenArray) -> None:
        """Several tokens to the only row."""
        (row,) = self.rows
        row.tokens += tokens.tolist()
        row.long_table = self._is_long(len(row.tokens))

    def trim(self, length: int) -> None:
        """Forget what lies beyond `length` tokens in every row."""
        self.cut([length] * len(self.rows))

    def cut(self, lengths: Sequence[int]) -> None:
        """The same with a length for each row. Keys stay those of the table that they were made with."""
        for row, length in zip(self.rows, lengths, strict=True):
            del row.tokens[length:]
            row.read = min(row.read, length)

    def reorder(self, parents: Sequence[int]) -> None:
        self.rows = [self.rows[parent].copy() for parent in parents]

    def reusable(self, prompts: Sequence[TokenArray]) -> int:
        """How many tokens of a single prompt are in the cache already, as reading the whole prompt would have left them
        there, so that a chunk or more is left to compute."""
        if len(prompts) > 1 or len(self.rows) != 1 or self._rope.changes_with_every_token:
            return 0
        (row,), (prompt,) = self.rows, prompts
        if row.long_table != self._is_long(len(prompt)):
            return 0
        length = len(row.tokens) if self.reuse_generated or not self._rounds_apart else row.read
        shared = max(0, min(length, len(prompt) - MIN_CHUNK))
        different = np.flatnonzero(np.array(row.tokens[:shared], np.int64) != prompt[:shared])
        return int(different[0]) if len(different) else shared

    def _read(self, prompt: TokenArray) -> HeldRow:
        return HeldRow(prompt.tolist(), len(prompt), self._is_long(len(prompt)))

    def _is_long(self, length: int) -> bool:
        limit = self._rope.recompute_beyond
        return limit is not None and length > limit
