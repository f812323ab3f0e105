"""Which tensors an architecture took: nothing missing, nothing of another shape, nothing left over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from edgellm.errors import TensorError, nearest
from edgellm_export.checkpoint.integers import UnusedBias
from edgellm_export.checkpoint.tensors import LazyTensor, ZeroTensor

SHOWN = 20


class TensorReader:
    """Hands out the tensors of a checkpoint and remembers which; `finish` reports all problems in one error."""

    def __init__(self, tensors: Mapping[str, LazyTensor], *, ignore: Sequence[str] = ()) -> None:
        self._tensors = tensors
        self._ignore = tuple(ignore)
        self._taken: set[str] = set()
        self._missing: list[str] = []
        self._wrong: list[str] = []

    def take(self, name: str, shape: tuple[int, ...]) -> LazyTensor:
        """The tensor `name`. A missing or misshapen one becomes zeros of `shape`, and `finish` will raise."""
        self._taken.add(name)
        tensor = self._tensors.get(name)
        if tensor is None:
            self._missing.append(f"{name} {list(shape)}")
        elif tensor.shape != shape:
            self._wrong.append(f"{name} has shape {list(tensor.shape)}, expected {list(shape)}")
        else:
            return tensor
        return ZeroTensor(name, shape)

    def optional(self, name: str, shape: tuple[int, ...] | None = None) -> LazyTensor | None:
        """The tensor `name` or None; `shape` is checked when given."""
        if name not in self._tensors:
            return None
        return self.take(name, self._tensors[name].shape if shape is None else shape)

    def finish(self) -> None:
        """Raises TensorError naming everything missing, of another shape, or not taken."""
        needed = {name for name, tensor in self._tensors.items() if not isinstance(tensor, UnusedBias)}
        left_over = needed - self._taken
        left = [name for name in self._tensors if name in left_over]
        unused = [name for name in left if not any(fnmatchcase(name, pattern) for pattern in self._ignore)]
        problems = [
            listing("missing", self._hinted(left) if unused else self._missing),
            listing("of another shape", self._wrong),
            listing("not used", unused),
        ]
        if any(problems):
            raise TensorError(
                "the checkpoint's tensors are not those its config describes\n"
                + "\n".join(p for p in problems if p)
                + "\ncheck that config.json and the weights belong together"
            )

    def _hinted(self, left: Sequence[str]) -> list[str]:
        """What is missing, with the name most like it of those that were not taken, for those that are shown."""
        shown = [f"{text} ({_hint(text, left)})" for text in self._missing[:SHOWN]]
        return [*shown, *self._missing[SHOWN:]]


def _hint(missing: str, left: Sequence[str]) -> str:
    hint = nearest(missing.split(" ")[0], left)
    return hint if hint.startswith("did") else "nothing like it"


def listing(title: str, items: Sequence[str]) -> str:
    """A paragraph of a message; empty without items."""
    if not items:
        return ""
    more = f"\n    ... and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return f"  {title} ({len(items)}):\n" + "\n".join(f"    {item}" for item in items[:SHOWN]) + more
