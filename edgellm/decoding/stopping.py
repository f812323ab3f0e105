"""When a sequence ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stopping:
    """The conditions that depend on more than the options: the tokenizer, the clock, the prompts.

    `matches_stop_string`: whether the text of a sequence's new tokens contains a stop string.
    `cancelled` is asked once per step. `deadline` is a `time.monotonic()` value.
    `max_new_tokens`: per prompt, at least 1 (see `GenerationOptions.limit`).
    """

    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None
    matches_stop_string: Callable[[Sequence[int]], bool] | None
    cancelled: Callable[[], bool] | None
    deadline: float | None
    max_new_tokens: tuple[int, ...]

    def interruption(self) -> str | None:
        """Why the whole search must end now: "cancelled", "time" or None. Asked once per step."""
        if self.cancelled is not None and self.cancelled():
            return "cancelled"
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "time"
        return None

    def end_of_text(self, tokens: Sequence[int]) -> str | None:
        """Why the new `tokens` are complete in themselves: "eos", "stop_string" or None."""
        if tokens[-1] in self.eos_token_ids:
            return "eos"
        if self.matches_stop_string is not None and self.matches_stop_string(tokens):
            return "stop_string"
        return None
