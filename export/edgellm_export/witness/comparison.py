"""A package beside what transformers makes of its checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import ExportError
from edgellm.loading import AnyModel, load
from edgellm.models.speech import SpeechModel
from edgellm.package.manifest import EncoderFacts, Manifest
from edgellm_export.witness.figures import model_checks
from edgellm_export.witness.findings import Check, Findings
from edgellm_export.witness.process import Reader
from edgellm_export.witness.questions import LENGTH, Question
from edgellm_export.witness.text import text_checks

Adapters = Sequence[tuple[str, float]]  # of PEFT: each with its weight


def compare(
    package: Path, source: str, reader: Reader, revision: str | None = None, adapters: Adapters = ()
) -> Findings:
    """Have transformers read the checkpoint `source`, and compare the package with it. Raises MissingDependencyError
    or ExportError where it cannot be asked, and what loading a package raises."""
    model = load(package, device="cpu")
    if isinstance(model, SpeechModel):
        raise ExportError(
            "packages of speech are compared with their checkpoint when they are made, not with transformers"
        )
    notes: list[str] = []
    checks: list[Check] = []
    with tempfile.TemporaryDirectory(prefix="edgellm-witness-") as out:
        question = _question(model, source, revision, adapters, out)
        answer = reader.ask(question)
        tokenizer, found = answer["tokenizer"], answer["model"]
        if "error" in tokenizer:
            reason = f"transformers opens no tokenizer there: {tokenizer['error']}"
            if model.tokenizer is None:
                notes.append(reason)
            else:
                checks.append(Check("tokens", 0, "texts", (reason,)))
        else:
            checks += text_checks(model, tokenizer)
        if found.get("missing"):
            notes.append(f"transformers made up what the checkpoint lacks: {', '.join(found['missing'][:3])}")
        checks += model_checks(model, found, question)
    return Findings(answer["transformers"], found.get("class", ""), tuple(checks), tuple(notes))


def ask_transformers(
    package: Path, source: str, *, python: str | None = None, revision: str | None = None, adapters: Adapters = ()
) -> Findings:
    """`compare`, in a process of the interpreter `python` (None: this one's), which goes away. Raises
    MissingDependencyError where it has no transformers."""
    with Reader(python) as reader:
        reader.check(source, adapters=bool(adapters))
        return compare(package, source, reader, revision, adapters)


def _question(model: AnyModel, source: str, revision: str | None, adapters: Adapters, out: str) -> Question:
    manifest: Manifest[Any] = model.manifest
    longest = getattr(manifest.model, "source_length", None) or LENGTH
    return Question(
        checkpoint=source,
        revision=revision,
        task=manifest.task,
        out=out,
        length=min(LENGTH, manifest.context_length, longest),
        embed=isinstance(manifest.model, EncoderFacts) and manifest.model.embedding is not None,
        adapters=adapters,
        labels=len(manifest.model.labels) if isinstance(manifest.model, EncoderFacts) else 0,
        global_attention=getattr(manifest.model, "global_attention", None),
        ids=np.random.default_rng(2).integers(0, manifest.vocab_size, (4, LENGTH)).tolist(),
    )
