"""When a sequence ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ends:
    """What ends a sequence, beside its number of tokens: the conditions that the tokenizer and the clock decide.

    `matches_stop_string`: whether the text of a sequence's new tokens contains a stop string.
    `deadline` is a `time.monotonic()` value. `pad_token_id` is what a finished group of beams goes on with.
    """

    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None
    matches_stop_string: Callable[[Sequence[int]], bool] | None = None
    deadline: float | None = None

    def of_text(self, tokens: Sequence[int]) -> str | None:
        """Why the new `tokens` are complete in themselves: "eos", "stop_string" or None."""
        if tokens[-1] in self.eos_token_ids:
            return "eos"
        if self.matches_stop_string is not None and self.matches_stop_string(tokens):
            return "stop_string"
        return None

    def of_time(self) -> str | None:
        """Why the sequence must end now: "time" once the deadline has passed, else None."""
        return "time" if self.deadline is not None and time.monotonic() >= self.deadline else None
