"""What merging needs to know of the base: its names, which of its matrices lie the other way, and what is tied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edgellm_export.architectures import kind_of, open_family
from edgellm_export.architectures.names import Names
from edgellm_export.checkpoint import Checkpoint
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
        names = (name, self.names.prefix + name)
        return next((full for full in (*names, *map(self._renamed, names)) if full in tensors), None)

    def _renamed(self, name: str) -> str:
        """As the family calls what the checkpoint calls `name`, where there is one of it."""
        copies = [(copy, own) for copy, own in self.names.copies.items() if name.startswith(own)]
        return copies[0][0] + name.removeprefix(copies[0][1]) if len(copies) == 1 else name

    def is_transposed(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.names.transposed)


def open_base(checkpoint: Checkpoint) -> tuple[Base, Checkpoint]:
    """A base, and its checkpoint under its family's names. Raises UnsupportedModelError or CheckpointError."""
    family, named = open_family(checkpoint)
    names: Names = family.names
    if kind_of(checkpoint.config) != "encoder-decoder":
        return Base(names, family.tied, frozenset()), named
    head = () if family.tied else (f"{names.head}.weight",)
    return Base(names, family.tied, frozenset({*names.vocabulary, *names.aliases} - {*head})), named
