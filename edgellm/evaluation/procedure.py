"""An evaluation from start to end: the data is read twice, first to check all of it, then to run it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from os import PathLike
from typing import Any

from edgellm.errors import InputError, OptionError, nearest
from edgellm.evaluation.data import DataLike, Joined, builtin_text, open_data
from edgellm.evaluation.evaluator import Evaluator
from edgellm.evaluation.kinds import evaluator_class, kind_of
from edgellm.evaluation.predictions import Write, predictions_file
from edgellm.evaluation.provenance import data_facts, package_facts, versions
from edgellm.evaluation.records import Columns, Data, Record
from edgellm.evaluation.reference import LazyReference, OpenPackage, ReferenceLike
from edgellm.evaluation.results import Evaluation, Findings
from edgellm.loading import AnyModel, load
from edgellm.ort.library import DeviceChoice
from edgellm.package.manifest import KVCacheChoice
from edgellm.pipelines.base import check_counts
from edgellm.types import Progress

OF_TEXTS = ("perplexity", "divergence")  # kinds for which a decoder reads a file of text as one


def evaluate(
    package: str | PathLike[str] | AnyModel,
    data: DataLike | None = None,
    *,
    task: str | None = None,
    reference: ReferenceLike | None = None,
    targets: Sequence[str | PathLike[str]] = (),
    columns: Mapping[str, str | Sequence[str]] | None = None,
    join: bool = False,
    limit: int | None = None,
    batch_size: int | None = None,
    predictions: str | PathLike[str] | None = None,
    device: DeviceChoice = "auto",
    threads: int | None = None,
    kv_cache: KVCacheChoice = "auto",
    progress: Progress | None = None,
    **options: Any,
) -> Evaluation:
    """Judge a package (a directory, or what `edgellm.load` made of one) by data.

    data: a file of text, JSON lines, JSON, CSV or TSV, or a list of texts or mappings; None is English text that Python
    carries, for decoders. targets: files with the expected text of each line of the data. columns: by role, where they
    are not named as the role: {"source": "de"}. task: a name in KINDS; None follows from the package's task and the
    data's columns. reference: a package or a checkpoint to compare with. join: the records' texts as one, with an empty
    line between them. limit: at most so many examples; windows for perplexity and divergence. predictions: a file for
    what the model said, in JSON lines. kv_cache: the package's, as for `edgellm.load`. progress: called as
    progress(step, done, total). options: those of the task.

    All of the data, up to the limit, is checked before anything runs. Raises EdgellmError.
    """
    roles = Columns.create(columns)
    open_other = partial(load, device="cpu" if device == "cpu" else "auto", threads=threads)
    asked = Brief(data, targets, columns or {}, roles, task, reference, join, limit, batch_size, predictions, options)
    model = (
        package if isinstance(package, AnyModel) else load(package, device=device, threads=threads, kv_cache=kv_cache)
    )
    return _answer(asked, model, open_other, progress or (lambda step, done, total: None))


@dataclass(frozen=True)
class Brief:
    """What `evaluate` was asked for. `roles` are all columns by role, the given ones among them. Raises OptionError."""

    data: DataLike | None
    targets: Sequence[str | PathLike[str]]
    columns: Mapping[str, str | Sequence[str]]
    roles: Columns
    task: str | None
    reference: ReferenceLike | None
    join: bool
    limit: int | None
    batch_size: int | None
    predictions: str | PathLike[str] | None
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        counts = {"limit": self.limit, "batch_size": self.batch_size}
        check_counts(**{name: count for name, count in counts.items() if count is not None})


def _answer(asked: Brief, model: AnyModel, open_package: OpenPackage, progress: Progress) -> Evaluation:
    name, records = _chosen(asked, model)
    with ExitStack() as stack:
        reference, options = None, asked.options
        if asked.reference is not None:
            reference = LazyReference(asked.reference, model, open_package, progress, stack)
            options = {**options, "reference": reference}
        evaluator = _evaluator(name, model, asked.roles, options)
        size = evaluator.batch_size if asked.batch_size is None else asked.batch_size
        total = _count(evaluator, records, asked.limit)
        with predictions_file(asked.predictions) as write:
            if reference is not None:
                reference()  # which may take an export: not a part of the time
            begin = time.perf_counter()
            findings = _run(evaluator, _batches(evaluator, records, asked.limit, size), total, write, progress)
            seconds = time.perf_counter() - begin
    columns = {role: names if isinstance(names, str) else list(names) for role, names in asked.columns.items()}
    choices = {"columns": columns, "join": asked.join, "limit": asked.limit, "batch_size": size}
    return Evaluation(
        task=name,
        package=package_facts(model),
        reference=None if reference is None else package_facts(reference(), asked.reference),
        data={**data_facts(asked.data), "targets": [data_facts(file) for file in asked.targets], "examples": total},
        settings={**evaluator.settings, **choices},
        metrics=findings.metrics,
        details=findings.details,
        versions=versions(model),
        seconds=seconds,
    )


def _chosen(asked: Brief, model: AnyModel) -> tuple[str, Data]:
    """The evaluation's name in KINDS, and the records to run it on."""
    source = _builtin(model) if asked.data is None else asked.data
    first = _first(open_data(source, targets=asked.targets))
    name = kind_of(asked.task, model.manifest, asked.roles, first, reference=asked.reference is not None)
    of_texts = name in OF_TEXTS and model.manifest.task == "text-generation"
    _check_choices(name, asked.reference, join=asked.join, of_texts=of_texts)
    records = open_data(source, targets=asked.targets, text_is_one=of_texts)
    return name, Joined(records, asked.roles) if asked.join else records


def _check_choices(name: str, reference: object, *, join: bool, of_texts: bool) -> None:
    if join and not of_texts:
        raise OptionError(f"join is for {' and '.join(OF_TEXTS)} of decoders, and the task is {name}; leave it out")
    if (name == "divergence") != (reference is not None):
        raise OptionError(
            "divergence needs a package or a checkpoint to compare with; give it with --reference"
            if reference is None
            else f"a reference is for divergence, and the task is {name}; leave out one of them"
        )


def _builtin(model: AnyModel) -> list[str]:
    if model.manifest.task != "text-generation":
        raise InputError(f"a package for {model.manifest.task} needs data to be judged by; give a file with --data")
    return builtin_text()


def _first(records: Data) -> Record:
    first = next(iter(records), None)
    if first is None:
        raise InputError("the data is empty")
    return first


def _evaluator(name: str, model: AnyModel, columns: Columns, options: Mapping[str, Any]) -> Evaluator[Any, Any]:
    """Raises OptionError for options that the evaluation has not."""
    kind = evaluator_class(name, model.manifest.task)
    parameters = inspect.signature(kind).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    unknown = next((option for option in options if option not in known), None)
    if unknown is not None and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise OptionError(f"{name} has no option {unknown!r}; {nearest(unknown, known)}")
    made: Evaluator[Any, Any] = kind(model, columns, **options)
    return made


def _items(evaluator: Evaluator[Any, Any], records: Data, limit: int | None) -> Iterator[Any]:
    return islice(chain.from_iterable(map(evaluator.items, records)), limit)


def _count(evaluator: Evaluator[Any, Any], records: Data, limit: int | None) -> int:
    """Makes every item once, which checks the data."""
    total = sum(1 for _ in _items(evaluator, records, limit))
    if not total:
        raise InputError("the data has nothing to evaluate: all of its texts are empty or a single token")
    return total


def _batches(evaluator: Evaluator[Any, Any], records: Data, limit: int | None, size: int) -> Iterator[list[Any]]:
    items = _items(evaluator, records, limit)
    while batch := list(islice(items, size)):
        yield batch


def _run(
    evaluator: Evaluator[Any, Any], batches: Iterator[list[Any]], total: int, write: Write, progress: Progress
) -> Findings:
    seen: list[Any] = []
    for batch in batches:
        for outcome in evaluator.run(batch):
            seen.append(outcome.seen)
            write(outcome.prediction)
            progress("evaluate", len(seen), total)
    return evaluator.findings(seen)
