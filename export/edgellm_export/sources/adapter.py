"""PEFT's adapter directories: config, tensors and tokenizer, and what to say where one is given as a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError, CheckpointNotFoundError
from edgellm.package.files import sha256_of
from edgellm_export.checkpoint.json_file import read_json
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.tokenizer.files import read_text_files
from edgellm_export.weights.pytorch import read_pytorch
from edgellm_export.weights.safetensors import read_safetensors

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_PYTORCH = "adapter_model.bin"


@dataclass(frozen=True)
class AdapterFiles:
    """What an adapter consists of. `place`: its path or hub id, for messages. `config`: adapter_config.json. `files`:
    as in Checkpoint. `source`: provenance, without absolute paths."""

    place: str
    config: Mapping[str, Any]
    tensors: Mapping[str, LazyTensor]
    files: Mapping[str, bytes]
    source: Mapping[str, Any]


def open_adapter_directory(path: Path, place: str, origin: Mapping[str, Any]) -> AdapterFiles:
    """`origin`: what is known of where it comes from (name, revision). Raises CheckpointError."""
    if not (path / ADAPTER_CONFIG).is_file():
        raise CheckpointNotFoundError(
            f"{place} has no {ADAPTER_CONFIG}; give a directory in which PEFT saved an adapter"
        )
    config = read_json(path / ADAPTER_CONFIG)
    weights = next((name for name in (ADAPTER_WEIGHTS, ADAPTER_PYTORCH) if (path / name).is_file()), None)
    if weights is None:
        raise CheckpointNotFoundError(
            f"{place} has neither {ADAPTER_WEIGHTS} nor {ADAPTER_PYTORCH}; download it, or save the adapter again"
        )
    read = read_safetensors if weights == ADAPTER_WEIGHTS else read_pytorch
    tensors: Mapping[str, LazyTensor] = read(path / weights)
    hashes = {name: sha256_of(path / name) for name in (ADAPTER_CONFIG, weights)}
    base = base_of(config)
    source = {**origin, **({} if base is None else {"base": base}), "sha256": hashes}
    return AdapterFiles(place, config, tensors, read_text_files(path), source)


def refuse_adapter(config: Mapping[str, Any], place: str, *, beside_model: bool) -> CheckpointError:
    """Of an adapter that was given as the model: what it is, and what to do."""
    kind, base = config.get("peft_type"), base_of(config)
    of_base = f"of {base}" if base else "of a base that it does not name"
    what = f"a LoRA adapter {of_base}" if kind == "LORA" else f"an adapter ({kind}) {of_base}"
    command = f"`edgellm export {base or 'BASE'} OUT --adapter {place}`"
    if beside_model:
        return CheckpointError(
            f"{place} holds a model and {what}; transformers would load that base with the adapter, as {command} does; "
            f"to export the model that lies here, give a copy without {ADAPTER_CONFIG}"
        )
    return CheckpointError(f"{place} is {what}, not a model; export its base with the adapter: {command}")


def base_of(config: Mapping[str, Any]) -> str | None:
    """The model that an adapter was trained on, as it says: a hub id, or the last part of a path."""
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name.strip("/\\"):
        return None
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else re.split(r"[/\\]", name.rstrip("/\\"))[-1]
