"""What a sentence encoder's own files change of its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgellm.errors import UnsupportedModelError
from edgellm.package.manifest import Task
from edgellm.package.sentence import is_sentence_encoder, lowers
from edgellm.package.sentence_steps import MODULES, SENTENCE_CONFIGS
from edgellm_export.architectures import Kind, kind_of
from edgellm_export.checkpoint import Checkpoint

TOKENIZER = "tokenizer.json"
LOWERCASE = {"type": "Lowercase"}


def as_sentence_encoder(checkpoint: Checkpoint, task: Task | None) -> Checkpoint:
    """The checkpoint as sentence-transformers opens it, where it is a sentence encoder and no other `task` was asked
    for: with a tokenizer that lowers texts first, if `do_lower_case` says so."""
    if task is not None or not is_sentence_encoder(checkpoint.files) or not lowers(checkpoint.files):
        return checkpoint
    if TOKENIZER not in checkpoint.files:
        return checkpoint
    tokenizer = json.loads(checkpoint.files[TOKENIZER])
    lowered = {**tokenizer, "normalizer": _lowering(tokenizer.get("normalizer"))}
    done = {TOKENIZER: _json(lowered)}
    for name in SENTENCE_CONFIGS:  # it is done: nobody who reads the package needs to do it again
        if name in checkpoint.files:
            done[name] = _json({**json.loads(checkpoint.files[name]), "do_lower_case": False})
    return replace(checkpoint, files={**checkpoint.files, **done})


def kind_for(checkpoint: Checkpoint, task: Task | None) -> Kind:
    """What to export a checkpoint as: a decoder as an encoder, where it gives a vector for a text, or the states of
    tokens. Raises UnsupportedModelError for a sentence encoder whose model is an encoder-decoder."""
    kind, sentences = kind_of(checkpoint.config), task is None and is_sentence_encoder(checkpoint.files)
    if kind == "encoder-decoder" and sentences:
        raise UnsupportedModelError(
            f"{MODULES} makes a sentence encoder of {checkpoint.config.get('model_type')}, and edgellm builds those of "
            "encoders and decoders only; to export the model as one that generates, say so with --task"
        )
    return "encoder" if kind == "decoder" and (sentences or task == "feature-extraction") else kind


def _json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _lowering(normalizer: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if normalizer is None:
        return LOWERCASE
    steps = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    return normalizer if LOWERCASE in steps else {"type": "Sequence", "normalizers": [LOWERCASE, *steps]}
