"""Sentence encoders: what the files of a checkpoint say of how a text becomes one vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import CheckpointError, UnsupportedModelError, nearest
from edgellm.package.layouts import USUAL_PROMPTS, Embedding, Pooling
from edgellm.package.sentence_steps import (
    BY_TOKEN,
    MODEL_CONFIG,
    MODULES,
    SENTENCE_CONFIGS,
    DenseStep,
    check_normalize,
    check_order,
    dense_of,
    json_object,
    modules_of,
    poolings_of,
    transformer_config,
)  # fmt: skip
from edgellm.package.text_limit import TOKENIZER_CONFIG, text_limit
from edgellm.types import FloatArray


@dataclass(frozen=True)
class SentenceEncoder:
    """From a text to its vector: the model's states pooled, `dense` layers, and what `embedding` says."""

    embedding: Embedding
    dense: tuple[DenseStep, ...] = ()


def is_sentence_encoder(files: Mapping[str, bytes]) -> bool:
    """Whether sentence-transformers makes one vector of a text with a checkpoint of these files; not where it scores
    pairs. Raises UnsupportedModelError for its other kinds of model."""
    if MODULES not in files:
        return False
    kind = json_object(files, MODEL_CONFIG).get("model_type", "SentenceTransformer") if MODEL_CONFIG in files else None
    if kind not in (None, "SentenceTransformer", "CrossEncoder"):
        raise UnsupportedModelError(
            f"{MODEL_CONFIG}: model_type is {kind!r}, whose vectors edgellm does not make; {BY_TOKEN}"
        )
    return kind != "CrossEncoder"


def read_embedding(root: Path, context_length: int) -> Embedding | None:
    """What a directory of another tool says; None where it is no sentence encoder, or one with steps that its graph
    does not have."""
    try:
        files = sentence_files(root)
        found = sentence_encoder(files, context_length)
        return None if found is None or found.dense or lowers(files) else found.embedding
    except CheckpointError:
        return None


def sentence_encoder(
    files: Mapping[str, bytes], context_length: int, hidden_size: int | None = None
) -> SentenceEncoder | None:
    """What a checkpoint's files, by their names in it, say; None where it is no sentence encoder. Raises
    UnsupportedModelError for steps that edgellm does not do, CheckpointError for files that cannot be read."""
    if not is_sentence_encoder(files):
        return None
    modules = modules_of(files)
    check_order([module.kind for module in modules])
    if modules[0].path:
        raise UnsupportedModelError(
            f"{MODULES} says that the model lies in {modules[0].path}; move its files to the top, and "
            'make the path there ""'
        )
    sentence = transformer_config(files)
    prompts, default = _prompts(files)
    for module in modules:
        if module.kind == "Normalize":
            check_normalize(files, module)
    pooling, *further = poolings_of(files, modules[1].config, hidden_size, has_prompts=any(prompts.values()))
    return SentenceEncoder(
        Embedding(
            pooling=pooling,
            normalize=any(module.kind == "Normalize" for module in modules),
            max_tokens=min(_longest(files, sentence, context_length), context_length),
            prompts=prompts,
            default_prompt=default,
            further=tuple(further),
        ),
        tuple(dense_of(files, module) for module in modules if module.kind == "Dense"),
    )


def lowers(files: Mapping[str, bytes]) -> bool:
    """Whether texts are lowered before the tokenizer's own normalizers."""
    return bool(transformer_config(files).get("do_lower_case"))


def check_widths(dense: Sequence[DenseStep], width: int) -> None:
    """Raises CheckpointError where a layer does not read a vector as wide as what comes before it."""
    for step in dense:
        if step.inputs != width:
            raise CheckpointError(f"{step.path}/config.json: in_features is {step.inputs}, and its inputs have {width}")
        width = step.outputs


def pooled(states: FloatArray, poolings: Sequence[Pooling]) -> FloatArray:
    """The vector of one text, made of its states [tokens, width]: [width] for each pooling, side by side."""
    return np.concatenate([_pooled(states, pooling) for pooling in poolings])


def _pooled(states: FloatArray, pooling: Pooling) -> FloatArray:
    match pooling:
        case "mean":
            found = states.mean(axis=0)
        case "cls":
            found = states[0]
        case "max":
            found = states.max(axis=0)
        case "mean_sqrt_len_tokens":
            found = states.sum(axis=0) / np.sqrt(np.float32(len(states)))
        case "weightedmean":
            weights = np.arange(1, len(states) + 1, dtype=np.float32)[:, None]
            found = (states * weights).sum(axis=0) / weights.sum()
        case "lasttoken":
            found = states[-1]
    return np.asarray(found, np.float32)


def sentence_files(root: Path) -> dict[str, bytes]:
    """The files of the directory `root` that say how its vectors are made, by their names in it: none where it is no
    sentence encoder's."""
    if not (root / MODULES).is_file():
        return {}
    names = [MODULES, MODEL_CONFIG, TOKENIZER_CONFIG, *SENTENCE_CONFIGS]
    files = {name: (root / name).read_bytes() for name in names if (root / name).is_file()}
    configs = [module.config for module in modules_of(files, strict=False)]
    return files | {name: (root / name).read_bytes() for name in configs if (root / name).is_file()}


def module_paths(modules: bytes) -> list[str]:
    """The directories that a modules.json of this content names, none outside of its own."""
    return [module.path for module in modules_of({MODULES: modules}, strict=False) if module.path]


def _longest(files: Mapping[str, bytes], sentence: Mapping[str, Any], context_length: int) -> int:
    """The most tokens of a text: the module's, or else the tokenizer's."""
    found = (sentence.get("processor_kwargs") or {}).get("model_max_length", sentence.get("max_seq_length"))
    if found is not None:
        if type(found) is not int or found < 1:
            raise CheckpointError(f"{SENTENCE_CONFIGS[0]}: max_seq_length is {found!r}, expected a whole number from 1")
        return found
    config = json_object(files, TOKENIZER_CONFIG) if TOKENIZER_CONFIG in files else {}
    return text_limit(config, context_length, CheckpointError)


def _prompts(files: Mapping[str, bytes]) -> tuple[dict[str, str], str | None]:
    """What may stand before a text, by name, and the name of what does where the caller does not say."""
    config = json_object(files, MODEL_CONFIG) if MODEL_CONFIG in files else {}
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")
    texts = isinstance(prompts, dict) and all(isinstance(text, str | None) for text in prompts.values())
    if not texts or not isinstance(default, str | None):
        raise CheckpointError(f"{MODEL_CONFIG}: prompts are not texts by name, or default_prompt_name is no name")
    found = {name: text or "" for name, text in prompts.items()}
    if default is not None and default not in {*USUAL_PROMPTS, *found}:
        raise CheckpointError(f"{MODEL_CONFIG}: default_prompt_name is {default!r}; {nearest(default, found)}")
    return found, default
