"""How much text a call has room for: the model's context, or what a limit on memory leaves of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgellm.errors import ContextOverflowError, MemoryBudgetError, OptionError
from edgellm.package.manifest import DecoderFacts, Manifest


@dataclass(frozen=True)
class Room:
    """How many tokens prompt and answer may have together. `max_bytes`: the memory budget that sets this limit; None:
    the model's context does."""

    tokens: int
    max_bytes: int | None = None

    def overflow(
        self, what: str, length: int, advice: str = 'shorten it, or let it be cut with overflow="truncate"'
    ) -> ContextOverflowError:
        if self.max_bytes is None:
            return ContextOverflowError(
                f"{what} has {length} tokens, the model's context is {self.tokens}: no room for a new token; {advice}"
            )
        return MemoryBudgetError(
            f"{what} has {length} tokens, and the session's max_bytes of {self.max_bytes} hold {self.tokens}: no room "
            f"for a new token; raise max_bytes, {advice}"
        )


@dataclass(frozen=True)
class MemoryBudget:
    """A limit on the memory of a cache. `max_bytes`: None for no limit but the context. `token_bytes`: what one token
    takes at most."""

    max_bytes: int | None
    token_bytes: int

    @classmethod
    def create(cls, max_bytes: Any, manifest: Manifest[DecoderFacts]) -> MemoryBudget:
        """A checked budget. While a step runs, a cache that concatenates is there twice. Raises OptionError."""
        layout = manifest.model.cache
        token_bytes = layout.bytes_per_token() * (2 if layout.growth == "concat" else 1)
        least = 2 * token_bytes
        if max_bytes is not None and (type(max_bytes) is not int or max_bytes < least):
            raise OptionError(
                f"max_bytes is {max_bytes!r}, expected a whole number of bytes from {least}, what two tokens take"
            )
        return cls(max_bytes, token_bytes)

    def room(self, context_length: int, rows: int = 1) -> Room:
        """The room of each of so many rows."""
        if self.max_bytes is None:
            return Room(context_length)
        tokens = self.max_bytes // (rows * self.token_bytes)
        return Room(context_length) if tokens >= context_length else Room(tokens, self.max_bytes)
