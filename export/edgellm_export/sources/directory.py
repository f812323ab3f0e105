"""A checkpoint directory as Hugging Face writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointNotFoundError
from edgellm.package.file_names import is_inside
from edgellm.package.files import sha256_of
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.json_file import read_json
from edgellm_export.prequantized import KEY, activations_of, method_of, widened
from edgellm_export.sources.choice import CONFIG, NAMED, find_weights, no_weights
from edgellm_export.sources.gguf_choice import SUFFIX
from edgellm_export.sources.reading import read_steps, read_weights
from edgellm_export.tokenizer.files import read_text_files


def open_directory(path: Path, source: Mapping[str, Any]) -> Checkpoint:
    """Open the directory `path`; `source` is what is known of its origin (name, revision)."""
    config = _read_config(path)
    file = find_weights(str(path), file_names(path) | _named(path, config), config)
    method = method_of(config)
    tensors = read_weights(path, file, config)
    hashes = {name: sha256_of(path / name) for name in (CONFIG, *([file.name] if file.is_index else []))}
    about = {"format": file.format, "dtypes": sorted({tensor.dtype for tensor in tensors.values()}), "sha256": hashes}
    quantized = {} if method is None else {"quantized": method, "activations": activations_of(config)}
    return Checkpoint(
        config={name: value for name, value in config.items() if name != KEY},  # a package's is its own
        tensors=widened(config, tensors),
        files=read_text_files(path),
        source={"kind": "huggingface", **source, **about, **quantized},
        directory=path,
        steps=read_steps(path),
    )


def file_names(path: Path) -> set[str]:
    """The files of a directory, of its folder of graphs, and GGUF files in any folder, as a repository lists them."""
    found = (file for pattern in ("*", "onnx/*", f"*/*{SUFFIX}") for file in path.glob(pattern))
    return {file.relative_to(path).as_posix() for file in found if file.is_file()}


def _named(path: Path, config: Mapping[str, Any]) -> set[str]:
    """The file of weights that config.json names, which may lie in any folder of the directory."""
    name = config.get(NAMED)
    return {name} if is_inside(name) and (path / name).is_file() else set()


def _read_config(path: Path) -> dict[str, Any]:
    if not (path / CONFIG).is_file():
        names = file_names(path)
        if any(name.startswith("consolidated") for name in names):
            raise no_weights(str(path), names, {})
        raise CheckpointNotFoundError(f"{path} has no {CONFIG}; give the directory that holds the model's {CONFIG}")
    return read_json(path / CONFIG)
