"""A context that shifts: when a sequence has filled the window, its oldest half is dropped and it goes on.

What is left is read anew, as a prompt: keys and values depend on the position, and on all that was read before, so
those in the cache are not those that the shorter text has. The next logits are therefore the model's own for that text.
The search knows nothing of this: its processors, stop strings and limits see the whole text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgellm.decoding.decoder import READING, Reading, Sources
from edgellm.decoding.prompt_lookup import Verifier
from edgellm.types import Logits, TokenArray


@dataclass(frozen=True)
class ContextWindow:
    """`size` tokens, of which the first `keep` are never dropped."""

    size: int
    keep: int

    def shifted(self, tokens: Sequence[int]) -> list[int]:
        """What is left of a sequence that fills the window: the first `keep` tokens, and of the last ones half of what
        the window holds behind those, rounded up."""
        last = (self.size - self.keep + 1) // 2
        return [*tokens[: self.keep], *tokens[len(tokens) - last :]]


class Shifting:
    """A decoder of a single row in front of another one. `dropped` counts the tokens that were left out so far."""

    def __init__(self, decoder: Verifier, window: ContextWindow) -> None:
        self._decoder = decoder
        self._window = window
        self._tokens: list[int] = []
        self._again = READING  # how what is left is read: it is no prompt, whose progress is told
        self.dropped = 0

    def prefill(self, prompts: Sequence[TokenArray], sources: Sources = None, reading: Reading = READING) -> Logits:
        (prompt,) = prompts
        self._tokens, self._again = prompt.tolist(), Reading(reading.headroom)
        return self._decoder.prefill(prompts, sources, reading)

    def decode(self, tokens: TokenArray) -> Logits:
        self._tokens += tokens.tolist()
        if len(self._tokens) < self._window.size:
            return self._decoder.decode(tokens)
        left = self._window.shifted(self._tokens)
        self.dropped += len(self._tokens) - len(left)
        self._tokens = left
        return self._decoder.prefill([np.array(left, np.int64)], None, self._again)

    def reorder(self, parents: TokenArray) -> None:
        assert parents.tolist() == [0]

    @property
    def lookahead(self) -> int:
        return min(self._decoder.lookahead, self._window.size - 1 - len(self._tokens))

    def verify(self, tokens: TokenArray) -> Logits:
        self._tokens += tokens.tolist()
        return self._decoder.verify(tokens)

    def forget(self, count: int) -> None:
        del self._tokens[-count:]
        self._decoder.forget(count)
