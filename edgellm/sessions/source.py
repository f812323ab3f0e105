"""What sessions need of their model, and what a saved one belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from edgellm.engines.cached import AnyEngine
from edgellm.errors import SessionMismatchError
from edgellm.generation.reader import PromptReader
from edgellm.package.files import read_errors, sha256_of
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.sessions.header import Header, StoredCache

TOKENIZER = "tokenizer.json"
TEXT = (".json", ".jinja", ".txt", ".md", ".model")  # files of a package that keys and values do not depend on


@dataclass(frozen=True)
class Identity:
    """What a saved session belongs to. `package`: sha256 over names and hashes of the graphs and their weights.
    `tokenizer`: that of tokenizer.json, "" where there is none. `cache`: how keys and values are stored."""

    package: str
    tokenizer: str
    cache: StoredCache

    @classmethod
    def of(cls, package: Path, manifest: Manifest[DecoderFacts]) -> Identity:
        """The identity of a package. Its hashes are the manifest's; where it is another tool's directory, which has
        none, they are computed now."""
        layout = manifest.model.cache
        graphs = sorted(name for name in manifest.files if PurePosixPath(name).suffix not in TEXT)
        digest = hashlib.sha256()
        for name in graphs:
            digest.update(f"{name}\n{_hash(package, manifest, name)}\n".encode())
        sizes = layout.num_own_layers, layout.num_kv_heads, layout.head_dim
        cache = StoredCache(*sizes, layout.dtype, layout.conv, layout.values_are_keys, layout.states)
        return cls(digest.hexdigest(), _hash(package, manifest, TOKENIZER), cache)

    def check(self, header: Header) -> None:
        """Raises SessionMismatchError."""
        problems = [
            f"it was saved with another {what}"
            for what, mine, its in (
                ("model (its graphs or weights differ)", self.package, header.package),
                ("tokenizer", self.tokenizer, header.tokenizer),
                (f"kind of cache ({header.cache}, this model's is {self.cache})", self.cache, header.cache),
            )
            if mine != its
        ]
        if problems:
            raise SessionMismatchError(", and ".join(problems))


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


def _hash(package: Path, manifest: Manifest, name: str) -> str:
    """Lower-case hexadecimal sha256 of a file of the package, "" where there is none."""
    entry = manifest.files.get(name)
    if entry is not None and entry.sha256:
        return entry.sha256
    with read_errors(package):
        return sha256_of(package / name) if (package / name).is_file() else ""
