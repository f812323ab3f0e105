"""The kinds of evaluation by name: which packages each is for, and where it is done."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from edgellm.errors import InputError, OptionError, TaskError, nearest
from edgellm.evaluation.records import Columns, Record
from edgellm.package.manifest import ENCODER_TASKS, GENERATION_TASKS, SPEECH_TASKS, Manifest, Task

ModuleAndClass = tuple[str, str]  # the module and the class of an Evaluator, imported when it is asked for

# By the task of the package.
KINDS: Mapping[str, Mapping[Task, ModuleAndClass]] = {
    "perplexity": dict.fromkeys(GENERATION_TASKS, ("perplexity", "PerplexityEvaluator")),
    "divergence": {
        **dict.fromkeys(GENERATION_TASKS, ("divergence", "DivergenceEvaluator")),
        **dict.fromkeys(ENCODER_TASKS, ("divergence", "EncoderDivergenceEvaluator")),
    },
    "translation": dict.fromkeys(GENERATION_TASKS, ("generated", "TranslationEvaluator")),
    "summarization": dict.fromkeys(GENERATION_TASKS, ("generated", "SummaryEvaluator")),
    "text2text-generation": dict.fromkeys(GENERATION_TASKS, ("generated", "TextEvaluator")),
    "text-classification": {"text-classification": ("classification", "ClassificationEvaluator")},
    "token-classification": {"token-classification": ("tags", "TagEvaluator")},
    "question-answering": {
        **dict.fromkeys(GENERATION_TASKS, ("question_answering", "WrittenAnswerEvaluator")),
        "question-answering": ("question_answering", "ExtractedAnswerEvaluator"),
    },
}


def evaluator_class(name: str, task: Task) -> Any:
    """The class that does the evaluation `name` with packages for `task`."""
    module, kind = KINDS[name][task]
    return getattr(import_module(f"edgellm.evaluation.{module}"), kind)


def kind_of(task: str | None, manifest: Manifest, columns: Columns, first: Record, *, reference: bool) -> str:
    """The name of the evaluation: `task`, or what the package and `first`, the data's first record, suggest. Raises
    OptionError, TaskError or InputError."""
    name = _inferred(manifest, columns, first, reference=reference) if task is None else task
    if name not in KINDS:
        raise OptionError(f"there is no evaluation {name!r}; {nearest(name, KINDS)}")
    if manifest.task in SPEECH_TASKS:
        raise TaskError("a package of speech is not judged by texts; transcribe recordings and compare what is written")
    if manifest.task not in KINDS[name]:
        fitting = [other for other, places in KINDS.items() if manifest.task in places]
        raise TaskError(
            f"the package is for {manifest.task}, and {name} needs one for {' or '.join(KINDS[name])}; this one can be "
            f"judged by {', '.join(fitting)}"
        )
    return name


def _inferred(manifest: Manifest, columns: Columns, first: Record, *, reference: bool) -> str:
    if reference:
        return "divergence"
    if manifest.task not in GENERATION_TASKS:
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
