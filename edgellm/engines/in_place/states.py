"""What a cache has of its state spaces (Mamba).

A layer with a state space has two tensors that are as large for one token as for many: the last inputs of its
convolution, and a sum over all tokens, from which none can be taken away. So a row can only go back to where the cache
has kept copies of both: where the last STATES_KEPT prompts ended.
"""

from __future__ import annotations

from edgellm.engines.in_place.recurrent import Buffers, Held, Recurrent
from edgellm.package.layouts import STATES_KEPT
from edgellm.package.manifest import CacheLayout, CacheTensor


class States(Recurrent):
    """`Held.first` is how many tokens of a row its states have read."""

    def __init__(self, layout: CacheLayout, *, remembers: bool) -> None:
        super().__init__([i for i, tensor in enumerate(layout.tensors()) if tensor.slots], remembers=remembers)

    def slots(self, tensor: CacheTensor, capacity: int) -> int:
        return tensor.slots

    def slots_behind(self, tokens: int, slots: int) -> slice:
        return slice(slots if tokens else 0)

    def part_slots(self, tensor: CacheTensor, tokens: int) -> int:
        return tensor.slots if tokens else 0

    def went_round(self, row: int, length: int, slots: int) -> bool:
        return True

    def has_read(self, row: int, length: int, count: int, buffers: Buffers) -> None:
        self.rows[row].first = length

    def starts_behind(self, row: int, tokens: int) -> None:
        self.rows[row].first = tokens

    def remember(self, row: int, tokens: int, buffers: Buffers) -> None:
        super().remember(row, tokens, buffers)
        self._forget_oldest(row)

    def recall(self, row: int, other: Held) -> None:
        super().recall(row, other)
        self._forget_oldest(row)

    def _forget_oldest(self, row: int) -> None:
        remembered = self.rows[row].remembered
        for tokens in sorted(remembered)[:-STATES_KEPT]:
            del remembered[tokens]

    def _is_there(self, row: int, tokens: int) -> bool:
        return tokens == self.rows[row].first
