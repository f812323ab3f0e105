"""Which GGUF file of a directory or a hub repository: each is one quantization of the model, and a name may say which,
as in org/name:Q4_K_M."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from edgellm.errors import CheckpointNotFoundError
from edgellm_export.gguf.shards import SHARD
from edgellm_export.sources.choice import ORDER

SUFFIX = ".gguf"
BESIDE = ("mmproj", "imatrix")  # what lies beside a model: a reader of images, statistics for quantization
LABEL = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q\d\w*|TQ\d\w*|MXFP4\w*|NVFP4|BF16|FP?16|FP?32))(?=[-./]|$)", re.IGNORECASE
)
DYNAMIC = "ud-"  # in front of labels of files whose layers have unlike types
LISTED = 20


@dataclass(frozen=True)
class GgufChoice:
    """One model, in a file or in parts, by their paths in the directory or repository."""

    files: tuple[str, ...]

    @property
    def name(self) -> str:
        """Without the number of a part."""
        path = PurePosixPath(self.files[0])
        match = SHARD.fullmatch(path.name)
        return str(path.with_name(f"{match['stem']}{SUFFIX}")) if match else str(path)

    @property
    def label(self) -> str:
        """What picks it: the quantization in its name, or the name."""
        found = LABEL.findall(self.name.removesuffix(SUFFIX))
        return str(found[-1]) if found else self.name

    def is_called(self, tag: str) -> bool:
        """Whether `tag` is its path or its label, whatever the case."""
        label = self.label.lower()
        return tag in (self.name, *self.files) or tag.lower() in (label, label.removeprefix(DYNAMIC))


def split_tag(source: str) -> tuple[str, str | None]:
    """A source, and what stands behind its last colon."""
    base, colon, tag = source.rpartition(":")
    return (base, tag) if colon and base and tag else (source, None)


def is_only_gguf(names: Collection[str]) -> bool:
    """Whether a directory or repository has GGUF files of a model and no weights of another kind."""
    return bool(gguf_choices(names)) and not {file.name for file in ORDER} & set(names)


def gguf_choices(names: Collection[str]) -> list[GgufChoice]:
    """The models among the files of a directory or repository."""
    sets: dict[str, list[str]] = {}
    for name in sorted(names):
        if name.lower().endswith(SUFFIX) and not any(word in name.lower() for word in BESIDE):
            sets.setdefault(GgufChoice((name,)).name, []).append(name)
    return [GgufChoice(tuple(files)) for files in sets.values()]


def choose(where: str, choices: Sequence[GgufChoice], tag: str | None) -> GgufChoice:
    """The model that `tag` names, or the only one. Raises CheckpointNotFoundError, which lists what there is."""
    found = [choice for choice in choices if tag is None or choice.is_called(tag)]
    exact = [choice for choice in found if tag is not None and choice.label.lower() == tag.lower()]
    if len(found) != 1 and len(exact) == 1:
        found = exact
    if len(found) == 1:
        return found[0]
    labels = [choice.label for choice in choices]
    shown = labels if len(set(labels)) == len(labels) else [choice.name for choice in choices]
    listed = ", ".join(shown[:LISTED]) + (f" and {len(shown) - LISTED} more" if len(shown) > LISTED else "")
    if not choices:
        raise CheckpointNotFoundError(f"{where} has no GGUF file of a model; leave {tag!r} out")
    problem = "holds several GGUF models" if tag is None else f"has {len(found) or 'no'} GGUF models called {tag!r}"
    raise CheckpointNotFoundError(f"{where} {problem}: {listed}; say which, as in {where}:{shown[0]}")
