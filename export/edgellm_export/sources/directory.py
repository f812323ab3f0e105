"""A checkpoint directory as Hugging Face writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError, CheckpointNotFoundError, TensorError, UnsupportedModelError
from edgellm.package.files import sha256_of
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.json_file import read_json
from edgellm_export.sources.choice import CONFIG, NAMED, WeightFile, find_weights, is_inside, no_weights, resaving
from edgellm_export.tokenizer.files import read_text_files
from edgellm_export.weights.hdf5 import read_hdf5
from edgellm_export.weights.pytorch import read_pytorch
from edgellm_export.weights.safetensors import SafetensorsTensor, read_format, read_safetensors
from edgellm_export.weights.strided import StridedTensor
from edgellm_export.weights.tensorflow import of_safetensors, translated

Tensors = Mapping[str, SafetensorsTensor | StridedTensor]
WRAPPERS = {
    "module.": "torch's DataParallel; save model.module in its place",
    "_orig_mod.": "torch.compile; save model._orig_mod in its place",
}
SUFFIXES = (".safetensors", ".bin")  # of the files that an index may name


def open_directory(path: Path, source: Mapping[str, Any]) -> Checkpoint:
    """Open the directory `path`; `source` is what is known of its origin (name, revision)."""
    config = _read_config(path)
    file = find_weights(str(path), file_names(path) | _named(path, config), config)
    tensors = _read_weights(path, file, config)
    hashes = {name: sha256_of(path / name) for name in (CONFIG, *([file.name] if file.is_index else []))}
    about = {"format": file.format, "dtypes": sorted({tensor.dtype for tensor in tensors.values()}), "sha256": hashes}
    return Checkpoint(
        config=config,
        tensors=tensors,
        files=read_text_files(path),
        source={"kind": "huggingface", **source, **about},
        directory=path,
    )


def file_names(path: Path) -> set[str]:
    """The files of a directory, and of its folder of graphs, as a repository lists them."""
    found = (file for pattern in ("*", "onnx/*") for file in path.glob(pattern))
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
    config = read_json(path / CONFIG)
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, Mapping) else quantization
        raise UnsupportedModelError(
            f"{path.name} is already quantized ({method}); export the original checkpoint it was made from"
        )
    return config


def _read_weights(path: Path, file: WeightFile, config: Mapping[str, Any]) -> Tensors:
    """Every tensor of the files that are to be read; of two with one name the later file's, as in transformers."""
    if file.format == "tensorflow":
        return translated(read_hdf5(path / file.name))
    names = shard_names(path / file.name) if file.is_index else [file.name]
    absent = [name for name in names if not (path / name).is_file()]
    if absent:
        raise CheckpointNotFoundError(
            f"{path} lacks {', '.join(absent)} of the {len(names)} files that {file.name} names; download them"
        )
    tensors: dict[str, SafetensorsTensor | StridedTensor] = {}
    for name in names:
        tensors |= _read_file(path / name, config)
    if file.is_index and (lost := sorted(read_json(path / file.name)["weight_map"].keys() - tensors.keys())):
        raise CheckpointError(f"{path}: {file.name} promises tensors that are not there: {', '.join(lost[:10])}")
    _check_wrappers(path / file.name, tensors)
    return tensors


def _read_file(path: Path, config: Mapping[str, Any]) -> Tensors:
    if path.suffix != ".safetensors":
        return read_pytorch(path)
    made_by = read_format(path)
    if made_by == "flax":
        raise TensorError(f"{path} holds the weights of a Flax model; {resaving(config, ', from_flax=True')}")
    tensors = read_safetensors(path)
    return of_safetensors(tensors) if made_by == "tf" else tensors


def _check_wrappers(path: Path, tensors: Tensors) -> None:
    """Names that a wrapper has put in front of the model's own, which transformers does not know either."""
    for prefix, remedy in WRAPPERS.items():
        if tensors and all(name.startswith(prefix) for name in tensors):
            raise TensorError(f"{path}: all tensors' names begin with {prefix!r}, which comes from {remedy}")


def shard_names(index: Path) -> list[str]:
    """The files that an index names, which must lie in its directory. Raises CheckpointError."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index} has no usable weight_map; download it again")
    names = sorted(set(weight_map.values()))
    for name in names:
        if not is_inside(name) or not name.endswith(SUFFIXES):
            raise CheckpointError(f"{index} names {name!r}, expected {' or '.join(SUFFIXES)} files in its directory")
    return names
