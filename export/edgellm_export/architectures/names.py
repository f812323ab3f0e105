"""What a family calls its tensors, and a checkpoint with each tensor under that name, whoever saved it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edgellm.types import FloatArray
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.tensors import ArrayTensor, Every, LazyTensor, RowSlice, item_of, transposed

COMPARED_ROWS = 1024  # at a time
MAX_EXPERTS = 1 << 12  # of a layer
LAYER = re.compile(r".*?\.\d+\.")


@dataclass(frozen=True)
class Stacked:
    """A tensor with a matrix or vector for each expert. `parts`: what each consists of, by names below a layer's, {}
    being the expert's number, without the `kind`; their rows are `in_turn`, or one part is behind the other.
    `transposed`: the matrices are stored [inputs, outputs]."""

    parts: tuple[str, ...]
    kind: str = "weight"
    in_turn: bool = False
    transposed: bool = False

    def fits(self, tensor: LazyTensor) -> bool:
        rank = 2 if self.kind == "bias" else 3
        return len(tensor.shape) == rank and tensor.shape[2 if self.transposed else 1] % len(self.parts) == 0

    def parts_of(self, tensor: LazyTensor, expert: int, layer: str) -> list[LazyTensor]:
        """One expert's; `layer`: what their names begin with."""
        whole, count = item_of(tensor, expert), len(self.parts)
        if self.transposed:
            whole = transposed(whole.name, whole)
        names, size = [f"{layer}{part.format(expert)}.{self.kind}" for part in self.parts], whole.shape[0] // count
        if self.in_turn:
            return [Every(name, whole, i, count) for i, name in enumerate(names)]
        return [RowSlice(name, whole, i * size, (i + 1) * size) for i, name in enumerate(names)]


@dataclass(frozen=True)
class Names:
    """A family's names for its tensors, but for those of its layers, which stand where the layers are built.

    `prefix`: what a checkpoint that was saved without its head leaves out of its names. `embedding`, `head`: matrices
    with a row per token, without ".weight". `head_bias`: a vector with an entry per token, which is stored as a matrix
    with one row. `others`: the full names of further tensors with a row per token. `aliases`: full names under which
    the embedding may be stored too, or instead. `twins`: full names, and those of tensors that win over them where a
    checkpoint has both. `older`: ends of names as older checkpoints have them, and today's. `unused`: patterns of the
    full names of what a checkpoint may hold for nothing. `transposed`: patterns of the full names of matrices that are
    stored [inputs, outputs]. `copies`: beginnings of full names, and of those of tensors that stand for theirs.
    `stacked`: names below a layer's, without ".weight", of tensors that have a matrix or a vector for each expert.
    """

    prefix: str = "model."
    embedding: str = "model.embed_tokens"
    head: str = "lm_head"
    head_bias: str | None = None
    others: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    twins: Mapping[str, str] = field(default_factory=dict)
    older: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ("*rotary_emb.inv_freq",)
    transposed: tuple[str, ...] = ()
    copies: Mapping[str, str] = field(default_factory=dict)
    stacked: Mapping[str, Stacked] = field(default_factory=dict)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The full names of all tensors with a row, or an entry, per token."""
        bias = () if self.head_bias is None else (self.head_bias,)
        return (f"{self.embedding}.weight", f"{self.head}.weight", *bias, *self.others)

    def ignored(self, *, tied: bool) -> tuple[str, ...]:
        """Patterns of the tensors that are left over without harm: `unused`, and the head of a model that is `tied`."""
        return (*self.unused, *((f"{self.head}.weight",) if tied else ()))


USUAL = Names()  # as Llama and its relatives have them


def canonical(
    checkpoint: Checkpoint, names: Names, *, tied: bool, defaults: Mapping[str, FloatArray] | None = None
) -> Checkpoint:
    """The same checkpoint with each tensor under its family's full name. `tied`: config.json says that the head is the
    embedding. `defaults`: of tensors that may be missing, by name."""
    tensors = _prefixed({_of_today(name, names.older): tensor for name, tensor in checkpoint.tensors.items()}, names)
    if names.copies:
        tensors = _copied(tensors, names.copies)
    tensors = _unstacked(tensors, names.stacked)
    tensors |= {name: tensors.pop(twin) for name, twin in names.twins.items() if twin in tensors}
    embedding = f"{names.embedding}.weight"
    others = (*names.aliases, *((f"{names.head}.weight",) if tied else ()))
    stored = next((name for name in (embedding, *others) if name in tensors), None)
    if stored is not None:  # one stands for all that are tied
        tensors[embedding] = tensors[stored]
    if names.head_bias in tensors and tensors[names.head_bias].shape:
        row = tensors[names.head_bias]
        tensors[names.head_bias] = ArrayTensor(names.head_bias, row.rows(0, row.shape[0]).reshape(-1))
    missing = {name: ArrayTensor(name, array) for name, array in (defaults or {}).items() if name not in tensors}
    return replace(checkpoint, tensors={**tensors, **missing})


def differ(tensors: Mapping[str, LazyTensor], one: str, other: str) -> bool:
    """Whether a checkpoint has two tensors, and not the same numbers in both."""
    if one not in tensors or other not in tensors or tensors[one] is tensors[other]:
        return False
    a, b = tensors[one], tensors[other]
    if a.shape != b.shape:
        return True
    starts = range(0, a.shape[0] if a.shape else 0, COMPARED_ROWS)
    return not all(
        np.array_equal(a.rows(start, stop), b.rows(start, stop))
        for start, stop in ((start, min(start + COMPARED_ROWS, a.shape[0])) for start in starts)
    )


def head_differs(tensors: Mapping[str, LazyTensor], names: Names) -> bool:
    """Whether a checkpoint has a head of its own, whatever its config says: transformers 5 then takes that one."""
    return differ(tensors, f"{names.embedding}.weight", f"{names.head}.weight")


def _of_today(name: str, older: Mapping[str, str]) -> str:
    for old, new in older.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _copied(tensors: dict[str, LazyTensor], copies: Mapping[str, str]) -> dict[str, LazyTensor]:
    """With all copies, and without what they are copies of."""
    made = {
        copy + name.removeprefix(own): tensor
        for copy, own in copies.items()
        for name, tensor in tensors.items()
        if name.startswith(own)
    }
    return {name: tensor for name, tensor in tensors.items() if not name.startswith((*copies.values(),))} | made


def _unstacked(tensors: dict[str, LazyTensor], stacked: Mapping[str, Stacked]) -> dict[str, LazyTensor]:
    """With a tensor for each part of each expert in the place of those that have all of them."""
    found: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        below = LAYER.match(name)
        stack = None if below is None else stacked.get(name[below.end() :].removesuffix(".weight"))
        if below is None or stack is None or not stack.fits(tensor):
            found[name] = tensor
            continue
        for expert in range(min(tensor.shape[0], MAX_EXPERTS)):
            found |= {part.name: part for part in stack.parts_of(tensor, expert, below[0])}
    return found


def _prefixed(tensors: dict[str, LazyTensor], names: Names) -> dict[str, LazyTensor]:
    """With the prefix, where a checkpoint was saved without it; the head has none."""
    if not tensors or any(name.startswith((names.prefix, *names.copies)) for name in tensors):
        return tensors
    whole = {name for name in names.vocabulary if not name.startswith(names.prefix)}
    return {name if name in whole else names.prefix + name: tensor for name, tensor in tensors.items()}
