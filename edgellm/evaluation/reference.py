"""What a package is compared with: another package, or a checkpoint, which becomes a float32 package first."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from os import PathLike
from pathlib import Path

from edgellm.errors import InputError, MissingDependencyError, TaskError
from edgellm.foreign import is_foreign
from edgellm.loading import AnyModel
from edgellm.package.files import read_errors
from edgellm.package.manifest import MANIFEST_NAME, EncoderFacts, Manifest
from edgellm.types import Progress

ReferenceLike = str | PathLike[str] | AnyModel
OpenPackage = Callable[[str | PathLike[str]], AnyModel]


class LazyReference:
    """The model to compare `model` with: it takes the same tokens, for the same task. It is opened when it is first
    called for, and not before.

    A checkpoint (directory, .gguf file, hub id) is exported at float32 into a temporary directory, which needs room for
    it, and the exporter; the stack given here removes it. A call raises EdgellmError.
    """

    def __init__(
        self, given: ReferenceLike, model: AnyModel, open_package: OpenPackage, progress: Progress, stack: ExitStack
    ) -> None:
        self._given, self._model, self._open_package = given, model, open_package
        self._progress, self._stack = progress, stack
        self._opened: AnyModel | None = None

    def __call__(self) -> AnyModel:
        if self._opened is None:
            self._opened = self._open()
            _check_alike(self._opened, self._model)
        return self._opened

    def _open(self) -> AnyModel:
        if isinstance(self._given, AnyModel):
            return self._given
        if is_package(Path(self._given)):
            return self._open_package(self._given)
        directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="edgellm-reference-"))
        package = Path(directory) / "package"
        _export(str(self._given), package, self._model.manifest, self._progress)
        return self._open_package(package)


def is_package(path: Path) -> bool:
    """Whether there is something to load, rather than to export."""
    with read_errors(path):
        return (path / MANIFEST_NAME).is_file() or is_foreign(path)


def _export(checkpoint: str, package: Path, manifest: Manifest, progress: Progress) -> None:
    try:
        from edgellm_export import export
    except ImportError as error:
        raise MissingDependencyError(
            f"a checkpoint as reference is exported first, which needs packages that are not installed ({error}); run "
            "`pip install edgellm[export,cpu]`, or give a float32 package"
        ) from error
    # Sentence encoders are what a checkpoint says it is, not a task to ask for.
    own = not isinstance(manifest.model, EncoderFacts) or manifest.model.embedding is not None
    task = None if own else manifest.task
    export(checkpoint, package, precision="fp32", task=task, verify_quality=False, calibrate=False, progress=progress)


def _check_alike(reference: AnyModel, model: AnyModel) -> None:
    theirs, ours = reference.manifest, model.manifest
    if theirs.task != ours.task:
        raise TaskError(f"the reference is for {theirs.task}, the package for {ours.task}; compare models for one task")
    if theirs.vocab_size != ours.vocab_size:
        raise InputError(
            f"the reference has {theirs.vocab_size} tokens, the package {ours.vocab_size}; only models of one "
            "vocabulary can be compared token by token"
        )
    facts = [each.model if isinstance(each.model, EncoderFacts) else EncoderFacts() for each in (theirs, ours)]
    vectors = [each.embedding is not None for each in facts]
    if vectors[0] != vectors[1]:
        raise TaskError(
            f"the {'package' if vectors[1] else 'reference'} makes a vector of a text and the other one does not; "
            "compare models for one task"
        )
    labels = [each.labels for each in facts]
    if labels[0] != labels[1]:
        raise InputError(
            f"the reference has the labels {', '.join(labels[0])}, the package {', '.join(labels[1])}; only models "
            "with the same labels can be compared"
        )
    a, b = reference.tokenizer, model.tokenizer
    if a is not None and b is not None:
        different = next((i for i in range(ours.vocab_size) if a.token_of(i) != b.token_of(i)), None)
        if different is not None:
            raise InputError(
                f"token {different} is {a.token_of(different)!r} in the reference and {b.token_of(different)!r} in "
                "the package; only models of one vocabulary can be compared token by token"
            )
