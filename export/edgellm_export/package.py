"""The package's other files: manifest, tokenizer, configs for the peers that share the directory."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from edgellm.manifest import (
    MANIFEST_NAME,
    CacheLayout,
    FileEntry,
    GraphFile,
    KVCacheType,
    Manifest,
    Precision,
    Rope,
    Target,
    TokenIds,
    Weights,
    sha256_of,
    write_manifest,
)
from edgellm_export.architectures import Architecture
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.genai_config import genai_config
from edgellm_export.quantize import WeightScheme
from edgellm_export.rope import needs_length_input

GRAPH = "model.onnx"


def make_manifest(
    checkpoint: Checkpoint,
    architecture: Architecture,
    scheme: WeightScheme,
    precision: Precision,
    target: Target,
    kv_cache: KVCacheType,
) -> Manifest:
    """The manifest, still without its files' hashes."""
    shape = architecture.shape
    rope = Rope(needs_length_input(shape.ropes), shape.recompute_beyond)
    inputs = ("input_ids", "attention_mask", "logits_to_keep", *(("rope_length",) if rope.has_length_input else ()))
    return Manifest(
        task="text-generation",
        model_type=str(checkpoint.config["model_type"]),
        target=target,
        graphs={"model": GraphFile(GRAPH, inputs, ("logits",))},
        cache=CacheLayout(shape.num_layers, shape.num_kv_heads, shape.head_dim, _cache_type(target, kv_cache)),
        weights=Weights(precision, scheme.name, shape.tied_embedding),
        vocab_size=shape.vocab_size,
        context_length=shape.context_length,
        tokens=_token_ids(checkpoint, shape.vocab_size),
        rope=rope,
        source=dict(checkpoint.source),
        versions={name: importlib.metadata.version(name) for name in ("edgellm", "onnx-ir", "numpy")},
    )


def _cache_type(target: Target, kv_cache: KVCacheType) -> Literal["float32", "float16", "int8"]:
    if kv_cache == "int8":
        return "int8"
    return "float32" if target == "cpu" else "float16"


def write_side_files(directory: Path, checkpoint: Checkpoint, manifest: Manifest) -> None:
    """Tokenizer, chat template, config.json, generation_config.json, genai_config.json."""
    for name, content in checkpoint.files.items():
        (directory / name).write_bytes(content)
    _write_json(directory / "config.json", checkpoint.config)
    if "generation_config.json" not in checkpoint.files:
        ids = manifest.tokens
        known = {"bos_token_id": ids.bos, "eos_token_id": list(ids.eos) or None, "pad_token_id": ids.pad}
        _write_json(directory / "generation_config.json", {k: v for k, v in known.items() if v is not None})
    _write_json(directory / "genai_config.json", genai_config(manifest, checkpoint.config))


def seal(directory: Path, manifest: Manifest) -> Manifest:
    """Write the manifest with the size and sha256 of every other file in `directory`."""
    names = sorted(
        p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST_NAME
    )
    known = manifest.files
    entries = {n: known.get(n) or FileEntry((directory / n).stat().st_size, sha256_of(directory / n)) for n in names}
    sealed = Manifest.from_dict(
        {**manifest.to_dict(), "files": {n: {"size": e.size, "sha256": e.sha256} for n, e in entries.items()}}
    )
    write_manifest(directory, sealed)
    return sealed


def _token_ids(checkpoint: Checkpoint, vocab_size: int) -> TokenIds:
    """generation_config.json speaks first, config.json where it is silent."""
    generation: Mapping[str, Any] = json.loads(checkpoint.files.get("generation_config.json", b"{}"))

    def ids(key: str) -> tuple[int, ...]:
        value = generation.get(key, checkpoint.config.get(key))
        values = value if isinstance(value, list) else [value]
        return tuple(v for v in values if type(v) is int and 0 <= v < vocab_size)

    def first(key: str) -> int | None:
        return next(iter(ids(key)), None)

    return TokenIds(first("bos_token_id"), ids("eos_token_id"), first("pad_token_id"))


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
