"""Sentence encoders: what modules.json and its configs say of how a text becomes one vector, and the pooling."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import CheckpointError, UnsupportedModelError, nearest
from edgellm.package.manifest import Embedding, Pooling
from edgellm.types import FloatArray

MODULES, SENTENCE_CONFIG = "modules.json", "sentence_bert_config.json"
STEPS = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
POOLINGS: Mapping[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
# The newer spelling of the same.
NAMES: Mapping[str, Pooling] = {"mean": "mean", "cls": "cls", "max": "max"}


def read_embedding(root: Path, context_length: int) -> Embedding | None:
    """What a directory of another tool says; None where it is no sentence encoder, or one with steps that are not done
    here."""
    try:
        return embedding_of(_files(root), context_length)
    except CheckpointError:
        return None


def embedding_of(files: Mapping[str, bytes], context_length: int, hidden_size: int | None = None) -> Embedding | None:
    """What a checkpoint's files, by their names in it, say; None where it is no sentence encoder. Raises
    UnsupportedModelError for steps that edgellm does not do, CheckpointError for files that cannot be read."""
    if MODULES not in files:
        return None
    modules = _modules(_json(files, MODULES))
    kinds = [module.kind for module in modules]
    if kinds not in STEPS:
        unknown = [kind for kind in kinds if kind not in STEPS[-1]]
        what = f"a step {unknown[0]}" if unknown else f"the steps {', '.join(kinds)}"
        raise UnsupportedModelError(
            f"{MODULES} has {what}; edgellm builds sentence encoders of Transformer, Pooling and Normalize, in that "
            "order; export with --task feature-extraction for the states of all tokens"
        )
    longest = _longest(files, context_length)
    pooling = _pooling(files, modules[1].config, hidden_size)
    return Embedding(pooling, "Normalize" in kinds, min(longest, context_length))


def pooled(states: FloatArray, pooling: Pooling) -> FloatArray:
    """The vector [width] of one text, made of its states [tokens, width]."""
    match pooling:
        case "mean":
            return np.asarray(states.mean(axis=0), np.float32)
        case "cls":
            return np.asarray(states[0], np.float32)
        case "max":
            return np.asarray(states.max(axis=0), np.float32)


@dataclass(frozen=True)
class _Module:
    """One step from text to vector. `kind`: the last part of its class's name."""

    kind: str
    path: str

    @property
    def config(self) -> str:
        return f"{self.path}/config.json"


def _files(root: Path) -> dict[str, bytes]:
    """The files of a directory that say how its vectors are made, those outside of it left out."""
    names = [MODULES, SENTENCE_CONFIG]
    files = {name: content for name in names if (content := _content(root, name)) is not None}
    if MODULES in files:
        configs = [module.config for module in _modules(_json(files, MODULES))]
        files |= {name: content for name in configs if (content := _content(root, name)) is not None}
    return files


def _content(root: Path, name: str) -> bytes | None:
    try:
        path = (root / name).resolve()
        return path.read_bytes() if path.is_relative_to(root.resolve()) and path.is_file() else None
    except (OSError, ValueError):
        return None


def _longest(files: Mapping[str, bytes], context_length: int) -> int:
    """The most tokens of a text."""
    sentence = _json(files, SENTENCE_CONFIG) if SENTENCE_CONFIG in files else {}
    if not isinstance(sentence, dict):
        raise CheckpointError(f"{SENTENCE_CONFIG} is not a JSON object; download it again")
    if sentence.get("do_lower_case") is True:
        raise UnsupportedModelError(
            f"{SENTENCE_CONFIG}: do_lower_case is true, which edgellm does not do; tokenizers do it themselves"
        )
    longest = sentence.get("max_seq_length") or context_length
    if type(longest) is not int or longest < 1:
        raise CheckpointError(f"{SENTENCE_CONFIG}: max_seq_length is {longest!r}, expected a whole number from 1")
    return longest


def _pooling(files: Mapping[str, bytes], name: str, hidden_size: int | None) -> Pooling:
    if name not in files:
        raise CheckpointError(f"the checkpoint lacks {name}, which {MODULES} names; download it")
    config = _json(files, name)
    if not isinstance(config, dict):
        raise CheckpointError(f"{name} is not a JSON object; download it again")
    size = config.get("word_embedding_dimension", config.get("embedding_dimension", hidden_size))
    if hidden_size is not None and size != hidden_size:
        raise CheckpointError(f"{name}: the dimension is {size!r}, and the model's hidden states have {hidden_size}")
    given = config.get("pooling_mode")
    if given is not None:
        chosen = [str(mode) for mode in (given if isinstance(given, list) else [given])]
        table = NAMES
    else:
        chosen = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        table = POOLINGS
    if len(chosen) != 1:
        raise UnsupportedModelError(f"{name} has {len(chosen)} pooling modes, edgellm builds one: {', '.join(chosen)}")
    if chosen[0] not in table:
        raise UnsupportedModelError(f"{name}: edgellm does not build {chosen[0]}; {nearest(chosen[0], table)}")
    return table[chosen[0]]


def _modules(data: Any) -> Sequence[_Module]:
    try:
        return [_Module(str(entry["type"]).rsplit(".", 1)[-1], str(entry["path"])) for entry in data]
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{MODULES} is not a list of modules with type and path ({error!r})") from error


def _json(files: Mapping[str, bytes], name: str) -> Any:
    try:
        return json.loads(files[name])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is not valid JSON ({error}); download it again") from error
