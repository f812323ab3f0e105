"""What a cache has of what its short convolutions read.

For a layer with a short convolution a cache holds [rows, 1, slots, width]: what the convolution read of the last
tokens, token i in slot i modulo their number. So a row can be trimmed by as many tokens as these are, or else to where
the cache has remembered what the convolutions would read next: at each CONV_STEP tokens, and where a prompt ended.
"""

from __future__ import annotations

import numpy as np

from edgellm.engines.in_place.recurrent import Buffers, Recurrent
from edgellm.package.layouts import CONV_SLOTS, CONV_STEP
from edgellm.package.manifest import CacheLayout, CacheTensor
from edgellm.types import Array


class Convolutions(Recurrent):
    """`chunk`: tokens that a run reads at most, but for one."""

    def __init__(self, layout: CacheLayout, *, chunk: int, remembers: bool) -> None:
        super().__init__([i for i, tensor in enumerate(layout.tensors()) if tensor.kernel], remembers=remembers)
        self.before = 0 if layout.conv is None else layout.conv.kernel - 1
        self.most_slots = max(CONV_SLOTS, -(-(chunk + 1 + self.before) // CONV_STEP) * CONV_STEP)

    def slots(self, tensor: CacheTensor, capacity: int) -> int:
        return min(capacity, self.most_slots)

    def slots_behind(self, tokens: int, slots: int) -> Array:
        return np.arange(max(0, tokens - self.before), tokens) % slots

    def part_slots(self, tensor: CacheTensor, tokens: int) -> int:
        return min(tokens, self.before)

    def went_round(self, row: int, length: int, slots: int) -> bool:
        return bool(self.rows[row].first) or length > slots

    def has_read(self, row: int, length: int, count: int, buffers: Buffers) -> None:
        held = self.rows[row]
        held.first = max(held.first, length - self.most_slots)
        for tokens in range((length - count) // CONV_STEP * CONV_STEP + CONV_STEP, length + 1, CONV_STEP):
            self.remember(row, tokens, buffers)

    def starts_behind(self, row: int, tokens: int) -> None:
        self.rows[row].first = max(0, tokens - self.before)

    def _is_there(self, row: int, tokens: int) -> bool:
        first = self.rows[row].first
        return first == 0 or tokens - self.before >= first
