"""The package's other files: tokenizer, configs, and the manifest with the hashes of all."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgellm.errors import UnsupportedModelError
from edgellm.package.files import sha256_of, write_manifest
from edgellm.package.generation import GENERATION, OWN, refused, settings_of
from edgellm.package.manifest import MANIFEST_NAME, Facts, FileEntry, Manifest, TokenIds
from edgellm_export.checkpoint import Checkpoint

GRAPH = "model.onnx"


def versions() -> dict[str, str]:
    """The versions of what makes a package."""
    return {name: importlib.metadata.version(name) for name in ("edgellm", "onnx-ir", "numpy")}


def write_side_files(directory: Path, checkpoint: Checkpoint) -> None:
    """Tokenizer, chat template, config.json and whatever else the checkpoint has that belongs in a package."""
    for name, content in checkpoint.files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    write_json(directory / "config.json", checkpoint.config)


def write_generation_config(directory: Path, checkpoint: Checkpoint) -> None:
    """generation_config.json of a model that generates, where the checkpoint has none or one with other meanings."""
    if OWN & _generation_file(checkpoint).keys() or GENERATION not in checkpoint.files:
        write_json(directory / GENERATION, generation_config(checkpoint))


def seal(directory: Path, manifest: Manifest[Facts]) -> Manifest[Facts]:
    """Write the manifest with the size and sha256 of every other file in `directory`."""
    names = sorted(
        p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST_NAME
    )
    known = manifest.files
    entries = {n: known.get(n) or FileEntry((directory / n).stat().st_size, sha256_of(directory / n)) for n in names}
    sealed = replace(manifest, files=entries)
    Manifest.from_dict(sealed.to_dict())  # what could not be read is not written
    write_manifest(directory, sealed)
    return sealed


def generation_config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """What the checkpoint says of how to generate, mostly little."""
    file = _generation_file(checkpoint) if GENERATION in checkpoint.files else None
    return {name: value for name, value in settings_of(file, checkpoint.config).items() if name not in OWN}


def _generation_file(checkpoint: Checkpoint) -> dict[str, Any]:
    return dict(json.loads(checkpoint.files.get(GENERATION, b"{}")))


def check_generation(checkpoint: Checkpoint) -> None:
    """Raises UnsupportedModelError where the checkpoint is to generate in a way that edgellm does not have."""
    if problems := refused(generation_config(checkpoint)):
        where = GENERATION if GENERATION in checkpoint.files else "config.json"
        raise UnsupportedModelError(f"{where}: {'; '.join(problems)}; remove the key to export the model without")


def token_ids(checkpoint: Checkpoint, vocab_size: int) -> TokenIds:
    return TokenIds.of(generation_config(checkpoint), vocab_size)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
