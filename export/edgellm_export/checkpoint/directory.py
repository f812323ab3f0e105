"""A checkpoint directory as Hugging Face writes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError, CheckpointNotFoundError, UnsupportedModelError
from edgellm_export.checkpoint.contents import Checkpoint
from edgellm_export.checkpoint.safetensors import SafetensorsTensor, read_safetensors

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CARRIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


def open_directory(path: Path, source: Mapping[str, Any]) -> Checkpoint:
    """Open the directory `path`; `source` is what is known of its origin (name, revision)."""
    config = _read_config(path)
    tensors = _read_tensors(path)
    dtypes = sorted({tensor.dtype for tensor in tensors.values()})
    hashes = {name: _sha256(path / name) for name in (CONFIG, INDEX) if (path / name).is_file()}
    return Checkpoint(
        config=config,
        tensors=tensors,
        files=_read_files(path),
        source={"kind": "huggingface", **source, "format": "safetensors", "dtypes": dtypes, "sha256": hashes},
    )


def _read_config(path: Path) -> dict[str, Any]:
    if not (path / CONFIG).is_file():
        raise CheckpointNotFoundError(f"{path} has no {CONFIG}; give the directory that holds the model's {CONFIG}")
    config = read_json(path / CONFIG)
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, Mapping) else quantization
        raise UnsupportedModelError(
            f"{path.name} is already quantized ({method}); export the original checkpoint it was made from"
        )
    return config


def _read_tensors(path: Path) -> dict[str, SafetensorsTensor]:
    if (path / INDEX).is_file():
        return _read_sharded(path)
    if (path / WEIGHTS).is_file():
        return read_safetensors(path / WEIGHTS)
    pickles = _names(path.glob("*.bin")) + _names(path.glob("*.pt")) + _names(path.glob("*.pth"))
    if pickles:
        raise CheckpointError(
            f"{path} holds only {', '.join(pickles[:3])}. Such files are Python pickles, which can run code and are "
            "never loaded; convert them once, for example with transformers: "
            "AutoModelForCausalLM.from_pretrained(...).save_pretrained(OUT, safe_serialization=True)"
        )
    others = _names(path.glob("*.safetensors")) + _names(path.glob("*.gguf"))
    found = f"it holds {', '.join(others[:5])}" if others else "it holds no weights"
    raise CheckpointNotFoundError(f"{path} has neither {WEIGHTS} nor {INDEX}; {found}")


def _read_sharded(path: Path) -> dict[str, SafetensorsTensor]:
    """The tensors that the index lists, from the shards that it names."""
    weight_map = read_json(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{path / INDEX} has no usable weight_map; download it again")
    shard_names = sorted(set(weight_map.values()))
    foreign = [
        name for name in shard_names if Path(name).name != name or "\\" in name or not name.endswith(".safetensors")
    ]
    if foreign:
        raise CheckpointError(f"{path / INDEX} names {foreign[0]!r}, expected .safetensors files beside it")
    absent = [name for name in shard_names if not (path / name).is_file()]
    if absent:
        raise CheckpointNotFoundError(
            f"{path} lacks {', '.join(absent)} of the {len(shard_names)} shards that {INDEX} names; download them"
        )
    shards = {name: read_safetensors(path / name) for name in shard_names}
    lost = [f"{name} in {shard}" for name, shard in weight_map.items() if name not in shards[shard]]
    if lost:
        raise CheckpointError(f"{path}: {INDEX} promises tensors that are not there: {', '.join(lost[:10])}")
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def _read_files(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in CARRIED if (path / name).is_file()}


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises CheckpointError."""
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); download it again") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a JSON {type(data).__name__}, expected an object")
    return data


def _names(paths: Iterable[Path]) -> list[str]:
    return sorted(path.name for path in paths)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
