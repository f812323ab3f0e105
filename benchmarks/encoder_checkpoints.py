"""Checkpoints of encoders: random weights in BERT-base's shape, and the sentence encoder that `make model` fetches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers

from environments import CACHE
from random_checkpoint import write_tensors

BERT_BASE: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


def bert_tensors(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a BERT checkpoint."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    rows = {"word": "vocab_size", "position": "max_position_embeddings", "token_type": "type_vocab_size"}
    for name, key in rows.items():
        yield f"embeddings.{name}_embeddings.weight", (config[key], hidden)
    yield from _norm("embeddings.LayerNorm", hidden)
    for i in range(config["num_hidden_layers"]):
        place = f"encoder.layer.{i}"
        for side in ("query", "key", "value"):
            yield from _linear(f"{place}.attention.self.{side}", hidden, hidden)
        yield from _linear(f"{place}.attention.output.dense", hidden, hidden)
        yield from _norm(f"{place}.attention.output.LayerNorm", hidden)
        yield from _linear(f"{place}.intermediate.dense", inner, hidden)
        yield from _linear(f"{place}.output.dense", hidden, inner)
        yield from _norm(f"{place}.output.LayerNorm", hidden)


def _linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def _norm(name: str, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)


def write_checkpoint(directory: Path) -> Path:
    """The checkpoint in `directory`, written unless it is there already."""
    if (directory / "config.json").is_file():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    write_tensors(directory / "model.safetensors", list(bert_tensors(BERT_BASE)))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (directory / "config.json").write_text(json.dumps(BERT_BASE, indent=2))
    return directory


def minilm() -> Path:
    directory = CACHE / "models" / "all-minilm-l6-v2"
    if not directory.is_dir():
        raise SystemExit(f"{directory} is missing; `make model` fetches it")
    return directory
