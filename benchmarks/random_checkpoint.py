"""Random weights in a real model's shape, written as safetensors row block by row block: for speed and memory, not
quality."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

# Qwen2.5-0.5B's published config.json.
QWEN25_05B: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "vocab_size": 151936,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "use_sliding_window": False,
    "max_window_layers": 21,
    "sliding_window": 32768,
    "torch_dtype": "bfloat16",
}

# Qwen2.5-1.5B's, as far as it differs.
QWEN25_15B: dict[str, Any] = {
    **QWEN25_05B,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
}


def qwen2_tensors(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a Qwen2 checkpoint."""
    hidden, inner, head = (
        config["hidden_size"],
        config["intermediate_size"],
        config["hidden_size"] // config["num_attention_heads"],
    )
    kv = config["num_key_value_heads"] * head
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        name = f"model.layers.{i}"
        for side, rows in (("q", hidden), ("k", kv), ("v", kv)):
            yield f"{name}.self_attn.{side}_proj.weight", (rows, hidden)
            yield f"{name}.self_attn.{side}_proj.bias", (rows,)
        yield f"{name}.self_attn.o_proj.weight", (hidden, hidden)
        for part in ("gate", "up"):
            yield f"{name}.mlp.{part}_proj.weight", (inner, hidden)
        yield f"{name}.mlp.down_proj.weight", (hidden, inner)
        yield f"{name}.input_layernorm.weight", (hidden,)
        yield f"{name}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)


def write_checkpoint(directory: Path, config: dict[str, Any], *, seed: int = 0) -> Path:
    """A bf16 checkpoint directory; weights normal(0, 0.02), norms 1. Already there: left alone."""
    if (directory / "config.json").is_file():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    write_tensors(directory / "model.safetensors", list(qwen2_tensors(config)), seed=seed)
    byte_tokenizer().save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    return directory


def write_tensors(path: Path, tensors: Sequence[tuple[str, tuple[int, ...]]], *, seed: int = 0) -> None:
    """A safetensors file in bf16: weights normal(0, 0.02), norms 1."""
    header, offset = {}, 0
    for name, shape in tensors:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors:
            _write_tensor(file, name, shape, rng)


def byte_tokenizer() -> Tokenizer:
    """One token per byte: enough to feed text to a model whose weights are random."""
    tokenizer = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _write_tensor(file: BinaryIO, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    if name.lower().endswith("norm.weight"):
        file.write(np.ones(shape, ml_dtypes.bfloat16).tobytes())
        return
    rows = max(1, (1 << 22) // int(np.prod(shape[1:], dtype=np.int64)))
    for start in range(0, shape[0], rows):
        block = rng.standard_normal((min(rows, shape[0] - start), *shape[1:]), np.float32) * np.float32(0.02)
        file.write(block.astype(ml_dtypes.bfloat16).tobytes())
