"""What sessions need of their model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgellm.engines.cached import AnyEngine
from edgellm.generation.reader import PromptReader
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.sessions.identity import Identity


@dataclass(frozen=True)
class SessionSource:
    """A package, what its prompts pass through, and what makes an engine with an empty cache."""

    package: Path
    reader: PromptReader
    new_engine: Callable[..., AnyEngine]

    @property
    def manifest(self) -> Manifest[DecoderFacts]:
        return self.reader.manifest

    @cached_property
    def identity(self) -> Identity:
        return Identity.of(self.package, self.manifest)
