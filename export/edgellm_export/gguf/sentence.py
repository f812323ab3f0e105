"""The files that make a checkpoint a sentence encoder, for a GGUF file that says how texts become vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

CLASS = "sentence_transformers.models"
MODES = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


def sentence_files(pooling: str, config: Mapping[str, Any], longest: int) -> dict[str, bytes]:
    """By name in a checkpoint. Vectors have length one, as llama.cpp gives them where nothing else is asked for."""
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"{CLASS}.{kind}"}
        for index, (path, kind) in enumerate(steps)
    ]
    size = config.get("hidden_size", config.get("dim"))
    pooled = {"word_embedding_dimension": size} | {key: mode == pooling for mode, key in MODES.items()}
    contents = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": longest, "do_lower_case": False},
        "1_Pooling/config.json": pooled,
    }
    return {name: (json.dumps(content, indent=2) + "\n").encode() for name, content in contents.items()}
