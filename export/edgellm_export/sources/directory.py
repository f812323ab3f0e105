"""A checkpoint directory as Hugging Face writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError, CheckpointNotFoundError, UnsupportedModelError
from edgellm.package.files import sha256_of
from edgellm.package.sentence import module_paths
from edgellm.package.sentence_steps import MODULES
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.json_file import read_json
from edgellm_export.tokenizer.files import read_text_files
from edgellm_export.weights.safetensors import SafetensorsTensor, read_safetensors

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def open_directory(path: Path, source: Mapping[str, Any]) -> Checkpoint:
    """Open the directory `path`; `source` is what is known of its origin (name, revision)."""
    config = _read_config(path)
    tensors = _read_tensors(path)
    dtypes = sorted({tensor.dtype for tensor in tensors.values()})
    hashes = {name: sha256_of(path / name) for name in (CONFIG, INDEX) if (path / name).is_file()}
    return Checkpoint(
        config=config,
        tensors=tensors,
        files=read_text_files(path),
        source={"kind": "huggingface", **source, "format": "safetensors", "dtypes": dtypes, "sha256": hashes},
        directory=path,
        steps=_read_steps(path),
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


def _read_steps(path: Path) -> dict[str, SafetensorsTensor]:
    """The tensors of what a sentence encoder has behind its model, each step's in a directory of its own."""
    modules = path / MODULES
    steps = module_paths(modules.read_bytes()) if modules.is_file() else []
    found: dict[str, SafetensorsTensor] = {}
    for step in steps:
        if (path / step / WEIGHTS).is_file():
            tensors = read_safetensors(path / step / WEIGHTS)
            named = (replace(tensor, name=f"{step}.{name}") for name, tensor in tensors.items())
            found |= {tensor.name: tensor for tensor in named}
    return found


def _read_sharded(path: Path) -> dict[str, SafetensorsTensor]:
    """The tensors that the index lists, from the shards that it names."""
    names = shard_names(path / INDEX)
    absent = [name for name in names if not (path / name).is_file()]
    if absent:
        raise CheckpointNotFoundError(
            f"{path} lacks {', '.join(absent)} of the {len(names)} shards that {INDEX} names; download them"
        )
    shards = {name: read_safetensors(path / name) for name in names}
    weight_map = read_json(path / INDEX)["weight_map"]
    lost = [f"{name} in {shard}" for name, shard in weight_map.items() if name not in shards[shard]]
    if lost:
        raise CheckpointError(f"{path}: {INDEX} promises tensors that are not there: {', '.join(lost[:10])}")
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def shard_names(index: Path) -> list[str]:
    """The files that an index names, which must lie beside it. Raises CheckpointError."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index} has no usable weight_map; download it again")
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index} names {name!r}, expected .safetensors files beside it")
    return names


def _names(paths: Iterable[Path]) -> list[str]:
    return sorted(path.name for path in paths)
