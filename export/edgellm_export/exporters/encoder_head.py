"""Which head a checkpoint has, and what its outputs stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from edgellm.errors import CheckpointError, UnsupportedModelError, nearest
from edgellm.package.manifest import GENERATION_TASKS, LABEL_TASKS, Problem, Task

# The end of a class's name in config.json's architectures -> what it is for
ENDINGS: Mapping[str, Task] = {
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "Model": "feature-extraction",
}
PRETRAINING = (
    "AlbertForPreTraining",
    "BertForPreTraining",
    "ErnieForPreTraining",
)  # a masked LM, and a guess that edgellm leaves out
TASKS: tuple[Task, ...] = tuple(ENDINGS.values())


def task_of(config: Mapping[str, Any], asked: Task | None) -> Task:
    """The task that was asked for, or that of the class that the checkpoint was saved from. Raises CheckpointError or
    UnsupportedModelError."""
    if asked is not None:
        if asked in GENERATION_TASKS:
            raise UnsupportedModelError(
                f"{config.get('model_type')} is an encoder, which does not generate; tasks for it: {', '.join(TASKS)}"
            )
        return asked
    classes = config.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes else None
    if not isinstance(name, str):
        raise CheckpointError(
            f"config.json does not say what the model is for (architectures is {classes!r}); say it with --task: "
            f"{', '.join(TASKS)}"
        )
    if name in PRETRAINING:
        return "fill-mask"
    found = next((task for ending, task in ENDINGS.items() if name.endswith(ending) and "LMHead" not in name), None)
    if found is None:
        raise UnsupportedModelError(
            f"edgellm does not build the head of {name}; export with --task feature-extraction for the hidden states"
        )
    return found


def labels_of(config: Mapping[str, Any], task: Task, outputs: int | None) -> tuple[str, ...]:
    """What the classes are called, in order: as in transformers 5, id2label says it, whatever label2id holds, but for a
    num_labels that contradicts it. outputs: how many rows the checkpoint's classifier has, if it has one. Raises
    CheckpointError where the map of labels is damaged or has another number."""
    if task not in LABEL_TASKS:
        return ()
    names, count = config.get("id2label"), config.get("num_labels")
    if count is not None and (type(count) is not int or count < 1):
        raise CheckpointError(f"config.json: num_labels is {count!r}, expected a whole number from 1")
    agree = count is None or (isinstance(names, Mapping) and len(names) == count)
    labels = _named(names) if names is not None and agree else _numbered(count or outputs or 2)
    if outputs is not None and outputs != len(labels):
        raise CheckpointError(
            f"config.json names {len(labels)} labels ({_short(list(labels))}), and the checkpoint's classifier has "
            f"{outputs} outputs; correct id2label"
        )
    return labels


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{i}" for i in range(count))


def _named(names: object) -> tuple[str, ...]:
    if not isinstance(names, Mapping) or not names or {*names} != {str(i) for i in range(len(names))}:
        raise CheckpointError(f"config.json: the keys of id2label are not the numbers from 0: {_short(names)}")
    labels = tuple(names[str(i)] for i in range(len(names)))
    if not all(isinstance(label, str) for label in labels):
        raise CheckpointError(f"config.json: id2label has labels that are not text: {_short(names)}")
    return labels


def problem_of(config: Mapping[str, Any], task: Task) -> Problem | None:
    value = config.get("problem_type")
    if value is None or task != "text-classification":
        return None
    if value not in get_args(Problem):
        raise UnsupportedModelError(f"config.json: problem_type is {value!r}; {nearest(str(value), get_args(Problem))}")
    problem: Problem = value
    return problem


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
