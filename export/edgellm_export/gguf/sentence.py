"""The files that make a checkpoint a sentence encoder, for a GGUF file that says how texts become vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CLASS = "sentence_transformers.models"
MODES = {
    "mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "lasttoken": "pooling_mode_lasttoken",
}  # fmt: skip
IDENTITY = "torch.nn.modules.linear.Identity"


@dataclass(frozen=True)
class Sentences:
    """`longest`: tokens of a text. `dense`: outputs and inputs of the linear layers behind the pooling, by the
    directory that each has in a checkpoint."""

    pooling: str
    longest: int
    dense: Mapping[str, tuple[int, int]]


def sentence_files(found: Sentences, config: Mapping[str, Any]) -> dict[str, bytes]:
    """By name in a checkpoint. Vectors have length one, as llama.cpp gives them where nothing else is asked for."""
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), *((path, "Dense") for path in found.dense)]
    steps.append((f"{len(steps)}_Normalize", "Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"{CLASS}.{kind}"}
        for index, (path, kind) in enumerate(steps)
    ]
    size = config.get("hidden_size", config.get("dim"))
    pooled = {"word_embedding_dimension": size} | {key: mode == found.pooling for mode, key in MODES.items()}
    contents = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": found.longest, "do_lower_case": False},
        "1_Pooling/config.json": pooled,
        **{f"{path}/config.json": _dense(*sizes) for path, sizes in found.dense.items()},
    }
    return {name: (json.dumps(content, indent=2) + "\n").encode() for name, content in contents.items()}


def _dense(outputs: int, inputs: int) -> dict[str, Any]:
    return {"in_features": inputs, "out_features": outputs, "bias": False, "activation_function": IDENTITY}
