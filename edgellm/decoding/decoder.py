"""What a search drives: a batch of rows, each with its own cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgellm.types import Logits, ProgressHook, TokenArray

HEADROOM = 256  # tokens of cache to make ready at first, beyond the prompt


class Decoder(Protocol):
    """A model with a KV cache of `len(prompts)` rows. Searches see nothing else of the model.

    The logits that it returns are not written to, and hold until the next call.
    """

    def prefill(
        self,
        prompts: Sequence[TokenArray],
        sources: Sequence[TokenArray] | None = None,
        *,
        headroom: int = ...,
        progress: ProgressHook | None = None,
    ) -> Logits:
        """Start over with one row per prompt ([length] each, lengths may differ). Returns [rows, vocab] of the last
        tokens.

        `sources`: what an encoder-decoder encodes, one for each row; None for other models. `headroom`: how many tokens
        to make room for beyond the prompts. `progress`: called between chunks; what it raises ends the prefill.
        """

    def decode(self, tokens: TokenArray) -> Logits:
        """Append one token to each row. tokens: [rows]. Returns [rows, vocab]."""

    def reorder(self, parents: TokenArray) -> None:
        """New row i continues old row parents[i]. parents: [new rows]; rows may be repeated, dropped or added."""
