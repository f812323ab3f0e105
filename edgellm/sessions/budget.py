"""A limit on the memory of a cache, as a limit on tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgellm.errors import OptionError
from edgellm.generation.overflow import Room
from edgellm.package.manifest import DecoderFacts, Manifest


@dataclass(frozen=True)
class Budget:
    """`max_bytes`: None for no limit but the context. `token_bytes`: what one token takes at most."""

    max_bytes: int | None
    token_bytes: int

    @classmethod
    def create(cls, max_bytes: Any, manifest: Manifest[DecoderFacts]) -> Budget:
        """Raises OptionError. While a step runs, a cache that concatenates is there twice."""
        layout = manifest.model.cache
        token_bytes = layout.bytes_per_token() * (2 if layout.growth == "concat" else 1)
        least = 2 * token_bytes
        if max_bytes is not None and (type(max_bytes) is not int or max_bytes < least):
            raise OptionError(
                f"max_bytes is {max_bytes!r}, expected a whole number of bytes from {least}, what two tokens take"
            )
        return cls(max_bytes, token_bytes)

    def room(self, context: Room, sequences: int = 1) -> Room:
        """For each of so many sequences."""
        if self.max_bytes is None:
            return context
        tokens = self.max_bytes // (sequences * self.token_bytes)
        return context if tokens >= context.tokens else Room(tokens, self.max_bytes)
