"""What a search drives: a batch of rows, each with its own cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edgellm.types import Array, Logits, ProgressHook, TokenArray

HEADROOM = 256  # tokens of cache to make ready at first, beyond the prompt
# What an encoder-decoder encodes, one for each row: tokens, or features of speech. None for other models.
Sources = Sequence[Array] | None


@dataclass(frozen=True)
class Reading:
    """How rows are read that begin. `headroom`: how many tokens to make room for beyond the prompts. `progress`: called
    between chunks; what it raises ends the reading."""

    headroom: int = HEADROOM
    progress: ProgressHook | None = None


READING = Reading()


class Decoder(Protocol):
    """A model with a KV cache of `len(prompts)` rows. Searches see nothing else of the model.

    The logits that it returns are not written to, and hold until the next call.
    """

    def prefill(self, prompts: Sequence[TokenArray], sources: Sources = None, reading: Reading = READING) -> Logits:
        """Start over with one row per prompt ([length] each, lengths may differ). Returns [rows, vocab] of the last
        tokens."""

    def decode(self, tokens: TokenArray) -> Logits:
        """Append one token to each row. tokens: [rows]. Returns [rows, vocab]."""

    def reorder(self, parents: TokenArray) -> None:
        """New row i continues old row parents[i]. parents: [new rows]; rows may be repeated, dropped or added."""
