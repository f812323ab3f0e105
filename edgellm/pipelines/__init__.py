"""The tasks people call by name, shaped as Hugging Face's pipelines shape them.

    pipe = edgellm.pipeline("text-classification", "sentiment-int8")
    pipe("A lovely film.")    # [{"label": "POSITIVE", "score": 0.99...}]

One module per task. What becomes of the model's numbers is in pure functions on arrays, which need no model: some in
the tasks' modules, others in `entities.py` and `scores.py`.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.errors import OptionError, TaskError, nearest
from edgellm.package.manifest import Manifest

if TYPE_CHECKING:
    from edgellm.loading import AnyModel
    from edgellm.pipelines.base import Pipeline

# The module and the class of each task; imported when it is asked for.
TASKS = {
    "text-generation": ("text_generation", "TextGeneration"),
    "text2text-generation": ("text2text", "Text2Text"),
    "summarization": ("text2text", "Summarization"),
    "translation": ("text2text", "Translation"),
    "automatic-speech-recognition": ("speech_recognition", "SpeechRecognition"),
    "fill-mask": ("fill_mask", "FillMask"),
    "text-classification": ("text_classification", "TextClassification"),
    "token-classification": ("token_classification", "TokenClassification"),
    "question-answering": ("question_answering", "QuestionAnswering"),
    "feature-extraction": ("feature_extraction", "FeatureExtraction"),
    "sentence-similarity": ("sentence_similarity", "SentenceSimilarity"),
    "text-ranking": ("text_ranking", "TextRanking"),
    "zero-shot-classification": ("zero_shot", "ZeroShotClassification"),
}
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
TRANSLATION = re.compile(r"translation_([^_]+)_to_([^_]+)")


def pipeline(task: str | None = None, model: str | PathLike[str] | AnyModel | None = None, **options: Any) -> Pipeline:
    """A task on a package, to be called as Hugging Face's pipeline of that name is.

    task: one of TASKS or ALIASES, or "translation_xx_to_yy"; None is the package's own.
    model: a package directory, or what `edgellm.load` made of one.
    options: those of `edgellm.load`, and defaults for the task's own. `device` may be spelled as Hugging Face has it.
    Raises TaskError for a package that does not fit, OptionError for an unknown task or option, and what `load` raises.
    """
    from edgellm.loading import load, read_package

    if task is not None:
        _kind(task)
    if model is None:
        raise OptionError("a pipeline needs a package: edgellm.pipeline(task, package)")
    if not isinstance(model, str | PathLike):
        kind = _kind(task or model.manifest.task)
        _check_fits(task or model.manifest.task, kind, model.info.path, model.manifest)
        return kind(task or model.manifest.task, model, options)
    path, manifest = read_package(Path(model))
    task = task or manifest.task
    kind = _kind(task)
    _check_fits(task, kind, path, manifest)
    for_load = {name: options.pop(name) for name in inspect.signature(load).parameters if name in options}
    if "device" in for_load:
        for_load["device"] = _device(for_load["device"])
    return kind(task, load(model, **for_load), options)


def _device(given: Any) -> Any:
    """-1 is the CPU, 0 and "cuda:0" are CUDA, as in Hugging Face's pipelines; others are left to `load`."""
    numbers = {-1: "cpu", 0: "cuda"}
    if type(given) is int and given in numbers:
        return numbers[given]
    return "cuda" if given == "cuda:0" else given


def _kind(task: str) -> type[Pipeline]:
    name = ALIASES.get(task, "translation" if TRANSLATION.fullmatch(task) else task)
    if name not in TASKS:
        raise OptionError(f"there is no task {task!r}; {nearest(task, [*TASKS, *ALIASES, 'translation_xx_to_yy'])}")
    module, kind = TASKS[name]
    found: type[Pipeline] = getattr(import_module(f"{__name__}.{module}"), kind)
    return found


def _check_fits(task: str, kind: type[Pipeline], path: Path, manifest: Manifest) -> None:
    if manifest.task not in kind.fits:
        fitting = [name for name in TASKS if manifest.task in _kind(name).fits]
        raise TaskError(
            f"{path} is a package for {manifest.task}, and {task} needs one for {' or '.join(kind.fits)}; "
            f"this package can do {', '.join(fitting)}"
        )
