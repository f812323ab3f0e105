"""The tensors of a directory: of the files that hold a model's weights, and of a sentence encoder's further steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError, CheckpointNotFoundError, TensorError
from edgellm.package.file_names import is_inside
from edgellm.package.sentence import module_paths
from edgellm.package.sentence_steps import MODULES, TOKEN_HEAD_FILES
from edgellm_export.checkpoint.json_file import read_json
from edgellm_export.sources.choice import PYTORCH, WEIGHTS, WeightFile, resaving
from edgellm_export.weights.hdf5 import read_hdf5
from edgellm_export.weights.pytorch import read_pytorch
from edgellm_export.weights.safetensors import SafetensorsTensor, read_with_format
from edgellm_export.weights.strided import StridedTensor
from edgellm_export.weights.tensorflow import of_safetensors, translated

Tensors = Mapping[str, SafetensorsTensor | StridedTensor]
WRAPPERS = {
    "module.": "torch's DataParallel; save model.module in its place",
    "_orig_mod.": "torch.compile; save model._orig_mod in its place",
}
SUFFIXES = (".safetensors", ".bin")  # of the files that an index may name


def read_weights(path: Path, file: WeightFile, config: Mapping[str, Any]) -> Tensors:
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


def _read_file(path: Path, config: Mapping[str, Any] | None = None) -> Tensors:
    if path.suffix != ".safetensors":
        return read_pytorch(path)
    tensors, made_by = read_with_format(path)
    if made_by == "flax":
        raise TensorError(f"{path} holds the weights of a Flax model; {resaving(config or {}, ', from_flax=True')}")
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


def read_steps(path: Path) -> Tensors:
    """The tensors of what a sentence encoder has behind its model, each step's in a directory of its own, those for
    tokens in files of their own."""
    modules = path / MODULES
    steps = module_paths(modules.read_bytes()) if modules.is_file() else []
    files = [(step, file) for step in steps if (file := step_weights(step, lambda name: (path / name).is_file()))]
    if steps:
        files += [(Path(file).stem, file) for file in TOKEN_HEAD_FILES if (path / file).is_file()]
    tensors = (replace(t, name=f"{step}.{name}") for step, file in files for name, t in _read_file(path / file).items())
    return {tensor.name: tensor for tensor in tensors}


def step_weights(step: str, is_there: Callable[[str], bool]) -> str | None:
    """The file with the weights of a sentence encoder's step, if it has any."""
    return next((name for file in (WEIGHTS, PYTORCH) if is_there(name := f"{step}/{file}")), None)
