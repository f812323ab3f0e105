"""Vectors of texts, in packages whose graph gives only the states of tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.manifest import Embedding, Pooling

FloatArray = npt.NDArray[np.float32]

STEPS = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
POOLINGS: Mapping[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


def read_embedding(root: Path, context_length: int) -> Embedding | None:
    """What modules.json and the configs that it names say; None where there is none, or steps that are not done
    here."""
    modules = _read(root / "modules.json")
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        return None
    kinds = [str(module.get("type")).rsplit(".", 1)[-1] for module in modules]
    if kinds not in STEPS:
        return None
    place = root / str(modules[1].get("path")) / "config.json"
    config = _read(place) if place.resolve().is_relative_to(root.resolve()) else None
    sentence = _read(root / "sentence_bert_config.json")
    if not isinstance(config, dict) or (isinstance(sentence, dict) and sentence.get("do_lower_case") is True):
        return None
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        return None
    longest = sentence.get("max_seq_length") if isinstance(sentence, dict) else None
    limit = longest if type(longest) is int and longest > 0 else context_length
    return Embedding(POOLINGS[chosen[0]], "Normalize" in kinds, min(limit, context_length))


def pooled(states: FloatArray, pooling: Pooling) -> FloatArray:
    """[width] of the states [tokens, width] of one text."""
    match pooling:
        case "mean":
            return np.asarray(states.mean(axis=0), np.float32)
        case "cls":
            return np.asarray(states[0], np.float32)
        case "max":
            return np.asarray(states.max(axis=0), np.float32)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
