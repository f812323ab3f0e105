"""The kinds of evaluation by name: which packages each is for, what it reads, and where it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edgellm.errors import InputError, OptionError, TaskError, nearest
from edgellm.evaluation.data import Columns, Record
from edgellm.manifest import Manifest, Task

GENERATIVE: tuple[Task, ...] = ("text-generation", "text2text-generation")


@dataclass(frozen=True)
class Kind:
    """`module` and `name`: of the Evaluator, imported when it is asked for. `fits`: the tasks of packages."""

    module: str
    name: str
    fits: tuple[Task, ...]

    def load(self) -> Any:
        return getattr(import_module(f"edgellm.evaluation.{self.module}"), self.name)


KINDS: Mapping[str, Kind] = {
    "perplexity": Kind("perplexity", "Perplexity", GENERATIVE),
}


def kind_of(task: str | None, manifest: Manifest, columns: Columns, first: Record, *, reference: bool) -> str:
    """The name of what to do. `first`: the data's first record. Raises OptionError, TaskError or InputError."""
    name = _inferred(manifest, columns, first, reference=reference) if task is None else task
    if name not in KINDS:
        raise OptionError(f"there is no evaluation {name!r}; {nearest(name, KINDS)}")
    if manifest.task not in KINDS[name].fits:
        fitting = [other for other, kind in KINDS.items() if manifest.task in kind.fits]
        raise TaskError(
            f"the package is for {manifest.task}, and {name} needs one for {' or '.join(KINDS[name].fits)}; this one "
            f"can be judged by {', '.join(fitting)}"
        )
    return name


def _inferred(manifest: Manifest, columns: Columns, first: Record, *, reference: bool) -> str:
    if reference:
        return "divergence"
    if manifest.task not in GENERATIVE:
        if manifest.task not in KINDS:
            raise InputError(f"a package for {manifest.task} can only be compared: give a reference with --reference")
        return manifest.task
    if columns.has(first, "question"):
        return "question-answering"
    if columns.has(first, "target"):
        return "text2text-generation"
    if manifest.task == "text2text-generation":
        raise InputError(
            f"{first.place}: no column 'target', found {', '.join(map(str, first.values))}; say which one has the "
            "expected texts with --column target=NAME, or give --targets FILE"
        )
    return "perplexity"
