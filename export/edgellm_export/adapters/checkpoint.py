"""A checkpoint and adapters, made one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgellm.errors import ExportError, UnsupportedModelError
from edgellm.package.manifest import Task
from edgellm.package.sentence import is_sentence_encoder
from edgellm.package.sentence_steps import MODULES
from edgellm_export.adapters.base import Base, open_base
from edgellm_export.adapters.config import AdapterConfig, parse_adapter_config
from edgellm_export.adapters.merge import Adapter, Merge
from edgellm_export.architectures import kind_of
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.config import is_number
from edgellm_export.checkpoint.tensors import LazyTensor, RowSlice
from edgellm_export.sources.adapter import ADAPTER_CONFIG, AdapterFiles
from edgellm_export.sources.opening import open_adapter
from edgellm_export.tokenizer.effective import TOKENIZER
from edgellm_export.tokenizer.files import CARRIED, PREPROCESSOR

GivenAdapter = str | Path | tuple[str | Path, float]
# What an encoder's adapter is for; of other models, heads that edgellm does not build.
TASKS: Mapping[str, Task] = {
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "FEATURE_EXTRACTION": "feature-extraction",
}


@dataclass(frozen=True)
class OpenAdapter:
    """An adapter with its files."""

    files: AdapterFiles
    config: AdapterConfig
    weight: float

    @property
    def provenance(self) -> dict[str, Any]:
        """For the manifest."""
        return {**self.files.source, "weight": self.weight}


def weighted(given: Sequence[GivenAdapter]) -> list[tuple[str, float]]:
    """Each with its weight, 1 where none was given."""
    pairs = [each if isinstance(each, tuple) else (each, 1.0) for each in given]
    return [(str(source), weight) for source, weight in pairs]


def open_adapters(given: Sequence[GivenAdapter], *, weights: bool = True) -> list[OpenAdapter]:
    """Each a path or a hub id, or that and a weight. Without `weights`, tensors that are on the hub stay there. Raises
    CheckpointError or ExportError."""
    opened = [_open(source, weight, weights) for source, weight in weighted(given)]
    for adapter in opened:
        if adapter.config.use_dora and (len(opened) > 1 or adapter.weight != 1):
            raise ExportError(
                f"{adapter.files.place} is a DoRA adapter: what it adds depends on all else that is merged; give it "
                "alone and without a weight"
            )
    return opened


def task_of_adapters(adapters: Sequence[OpenAdapter], files: Mapping[str, bytes]) -> Task | None:
    """What they were trained for, where their configs say so; of a sentence encoder, its own `files` say it. Raises
    ExportError where adapters differ."""
    tasks = {TASKS[kind] for adapter in adapters if (kind := str(adapter.config.task_type)) in TASKS}
    if len(tasks) > 1:
        raise ExportError(f"the adapters are for different tasks, {', '.join(sorted(tasks))}; say which with --task")
    return None if is_sentence_encoder(files) else next(iter(tasks), None)


def merge_adapters(checkpoint: Checkpoint, adapters: Sequence[OpenAdapter]) -> Checkpoint:
    """The checkpoint with the adapters in its weights, and with a tokenizer that they bring. Its config says so where
    the vocabulary has grown, or the head is no longer the embedding. Raises CheckpointError or ExportError."""
    if not adapters:
        return checkpoint
    _check_tasks(checkpoint.config, adapters)
    base, checkpoint = open_base(checkpoint)
    before = checkpoint.tensors.get(base.embedding)
    tied = {base.head: before} if base.tied and before is not None else {}
    merge = Merge(base, {**checkpoint.tensors, **tied})
    for adapter in adapters:
        merge.merge(Adapter(adapter.files.place, adapter.config, adapter.files.tensors, adapter.weight))
    config, tensors = _retied(checkpoint.config, base, merge.tensors, before)
    return replace(
        checkpoint,
        config=config,
        tensors=tensors,
        files=_files(checkpoint.files, adapters),
        source={**checkpoint.source, "adapters": [adapter.provenance for adapter in adapters]},
    )


def _open(source: str, weight: float, weights: bool) -> OpenAdapter:
    if not is_number(weight):
        raise ExportError(f"the weight of the adapter {source} is {weight!r}, expected a number")
    files = open_adapter(source, weights=weights)
    place = f"{files.place}: {ADAPTER_CONFIG}"
    return OpenAdapter(files, parse_adapter_config(files.config, place), float(weight))


def _check_tasks(config: Mapping[str, Any], adapters: Sequence[OpenAdapter]) -> None:
    if kind_of(config) == "encoder":
        return
    for adapter in adapters:
        kind = str(adapter.config.task_type)
        if kind in TASKS:
            raise UnsupportedModelError(
                f"{adapter.files.place} was trained for {TASKS[kind]} (task_type {kind}), whose head edgellm does not "
                f"build for {config.get('model_type')}"
            )


def _retied(
    config: Mapping[str, Any], base: Base, tensors: dict[str, LazyTensor], before: LazyTensor | None
) -> tuple[Mapping[str, Any], Mapping[str, LazyTensor]]:
    """Of a model whose head was its embedding, one with two matrices where the adapters made them two."""
    embedding, head = tensors.get(base.embedding), tensors.get(base.head)
    changes: dict[str, Any] = {}
    if embedding is not None and before is not None and embedding.shape[0] != before.shape[0]:
        changes["vocab_size"] = embedding.shape[0]
    if base.tied and head is not None and head is not embedding:
        changes["tie_word_embeddings"] = False
        apart = {base.embedding: embedding, base.head: head}  # under names of their own, which say what is one
        tensors |= {name: RowSlice(name, each, 0, each.shape[0]) for name, each in apart.items() if each is not None}
    elif base.tied:
        tensors = {name: tensor for name, tensor in tensors.items() if name != base.head}
    return {**config, **changes}, tensors


def _files(files: Mapping[str, bytes], adapters: Sequence[OpenAdapter]) -> Mapping[str, bytes]:
    """An adapter's directory that holds a tokenizer, or a sentence encoder's modules, replaces the base's."""
    for is_part, sign in ((_is_of_tokenizer, TOKENIZER), (_is_of_sentence, MODULES)):
        brought: Mapping[str, bytes] = {}
        for adapter in adapters:
            found = {name: content for name, content in adapter.files.files.items() if is_part(name)}
            if sign not in found:
                continue
            if brought and found != brought:
                raise ExportError(
                    f"{adapter.files.place} and an adapter before it bring different files of a tokenizer or of a "
                    f"sentence encoder ({sign} and beside it); remove those of one of the two"
                )
            brought = found
        if brought:
            files = {**{name: content for name, content in files.items() if not is_part(name)}, **brought}
    return files


def _is_of_tokenizer(name: str) -> bool:
    return name in CARRIED and name not in ("generation_config.json", PREPROCESSOR)


def _is_of_sentence(name: str) -> bool:
    return name not in CARRIED
