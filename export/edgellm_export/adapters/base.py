"""What merging needs to know of the base: its names, which of its matrices lie the other way, and what is tied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from edgellm_export.architectures import kind_of, open_family
from edgellm_export.architectures.names import Names
from edgellm_export.checkpoint.tensors import LazyTensor


@dataclass(frozen=True)
class Base:
    """`tied`: the head is the embedding of words. `frozen`: full names of tensors that no adapter may change, since
    transformers itself does not agree with itself about what that means."""

    names: Names
    tied: bool
    frozen: frozenset[str]

    @property
    def embedding(self) -> str:
        return f"{self.names.embedding}.weight"

    @property
    def head(self) -> str:
        return f"{self.names.head}.weight"

    def find(self, name: str, tensors: Mapping[str, LazyTensor]) -> str | None:
        """The full name of a tensor that an adapter names as some class of the family has it."""
        return next((full for full in (name, self.names.prefix + name) if full in tensors), None)

    def is_transposed(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.names.transposed)


def base_of_config(config: Mapping[str, Any]) -> Base:
    """Raises UnsupportedModelError or CheckpointError."""
    kind, family = kind_of(config), open_family(config)
    names: Names = family.names
    tied: bool = family.config.tied_embedding if kind == "encoder" else family.shape.tied_embedding
    if kind != "encoder-decoder":
        return Base(names, tied, frozenset())
    head = () if tied else (f"{names.head}.weight",)
    return Base(names, tied, frozenset({*names.vocabulary, *names.aliases} - {*head}))
