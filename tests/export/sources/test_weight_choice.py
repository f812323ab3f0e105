"""Which files hold the weights, and what is said where transformers would find none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from edgellm.errors import CheckpointError, CheckpointNotFoundError, TensorError
from edgellm_export.sources.choice import NAMED, ORDER, find_weights, resaving
from edgellm_export.sources.opening import open_checkpoint

BIN, BIN_INDEX, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json", "model.safetensors.index.json"
MARIAN = {"model_type": "marian", "architectures": ["MarianMTModel"]}


def written(path: Path, config: dict[str, Any] | None = None, **files: Any) -> Path:
    """A checkpoint directory. A dictionary is JSON, a number a file with the tensor `w` of so many elements."""
    for name, content in {"config.json": config or {"model_type": "llama"}, **files}.items():
        place = path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            place.write_text(json.dumps(content))
        elif isinstance(content, bytes):
            place.write_bytes(content)
        elif name.endswith(".safetensors"):
            save_file({"w": np.zeros(content, np.float32)}, place)
        else:
            torch.save({"w": torch.zeros(content)}, place)
    return path


def map_of(name: str) -> dict[str, Any]:
    return {"metadata": {}, "weight_map": {"w": name}}


# Files beside each other, and the size of `w` in those that are read.
BESIDE = {
    "one file before an old index": ({"model.safetensors": 1, INDEX: map_of("a.safetensors"), "a.safetensors": 2}, 1),
    "safetensors before pytorch": ({"model.safetensors": 1, BIN: 2}, 1),
    "an index before pytorch": ({INDEX: map_of("a.safetensors"), "a.safetensors": 1, BIN: 2}, 1),
    "pytorch before its old index": ({BIN: 1, BIN_INDEX: map_of("a.bin"), "a.bin": 2}, 1),
    "pytorch's index": ({BIN_INDEX: map_of("a.bin"), "a.bin": 1}, 1),
    "pytorch before tensorflow": ({BIN: 1, "tf_model.h5": b"no"}, 1),
    "pytorch before flax": ({BIN: 1, "flax_model.msgpack": b"no"}, 1),
    "safetensors beside Mistral's own": ({"model.safetensors": 1, "consolidated.safetensors": 2}, 1),
    "safetensors beside a variant": ({"model.safetensors": 1, "model.fp16.safetensors": 2}, 1),
    "safetensors beside GGUF": ({"model.safetensors": 1, "model-Q8_0.gguf": b"no"}, 1),
    "safetensors beside graphs": ({"model.safetensors": 1, "onnx/model.onnx": b"no"}, 1),
    "pytorch beside training's files": ({BIN: 1, "training_args.bin": 2, "optimizer.pt": 3}, 1),
    "shards in a folder": ({INDEX: map_of("parts/a.safetensors"), "parts/a.safetensors": 1}, 1),
    "an index of the other kind": ({BIN_INDEX: map_of("a.safetensors"), "a.safetensors": 1}, 1),
}  # fmt: skip


@pytest.mark.parametrize("case", BESIDE)
def test_files_are_looked_for_in_the_order_of_transformers(case: str, tmp_path: Path) -> None:
    files, size = BESIDE[case]
    assert open_checkpoint(str(written(tmp_path, **files))).tensors["w"].shape == (size,)


def test_the_config_may_name_the_file(tmp_path: Path) -> None:
    files = {"b.safetensors": 2, "model.safetensors": 1, "sub/c.safetensors": 3}
    files |= {"sub/x.safetensors.index.json": map_of("b.safetensors")}
    for name, size in (("b.safetensors", 2), ("sub/c.safetensors", 3), ("sub/x.safetensors.index.json", 2)):
        path = written(tmp_path, {"model_type": "llama", NAMED: name}, **files)
        assert open_checkpoint(str(path)).tensors["w"].shape == (size,)
    written(path, {"model_type": "llama", NAMED: "sub/b.safetensors"})
    with pytest.raises(CheckpointNotFoundError, match=r"has no sub/b\.safetensors, which its config\.json names"):
        open_checkpoint(str(path))


@pytest.mark.parametrize("name", ["../b.safetensors", "/b.safetensors", "b.bin", "", 3, "a\\b.safetensors", "b"])
def test_what_the_config_may_not_name(name: Any, tmp_path: Path) -> None:
    path = written(tmp_path, {"model_type": "llama", NAMED: name}, **{"model.safetensors": 1})
    with pytest.raises(CheckpointError, match=r"as transformers_weights, expected a \.safetensors file"):
        open_checkpoint(str(path))


OTHERS = {
    "a variant": ({"model.fp16.safetensors": 1}, r"only model\.fp16\.safetensors: a variant of model\.s.*rename"),
    "a variant in parts": (
        {"model.safetensors.index.fp16.json": {}, "model.fp16-00001-of-00002.safetensors": 1},
        r"a variant of model\.safetensors\.index\.json",
    ),
    "a variant of pytorch": ({"pytorch_model.fp16.bin": 1}, r"a variant of pytorch_model\.bin"),
    "parts without an index": (
        {"model-00001-of-00002.safetensors": 1},
        r"a part of the weights without model\.safetensors\.index\.json",
    ),
    "pytorch's parts without an index": (
        {"pytorch_model-00001-of-00002.bin": 1},
        r"a part of the weights without pytorch_model\.bin\.index\.json",
    ),
    "Mistral's own": ({"consolidated.safetensors": 1}, r"only consolidated\.safetensors: .*convert_mistral_weights"),
    "Llama's own": ({"consolidated.00.pth": 1}, "convert_llama_weights_to_hf"),
    "flax": ({"flax_model.msgpack": b""}, r"Flax weights; .*MarianMTModel\.from_pretrained\(\w+, from_flax=True\)"),
    "tensorflow in parts": ({"tf_model.h5.index.json": {}}, r"TensorFlow weights in parts.*TFMarianMTModel"),
    "tensorflow 1": ({"model.ckpt.index": b""}, r"a TensorFlow 1 checkpoint; .*from_tf=True"),
    "graphs": ({"model.onnx": b""}, r"only model\.onnx: graphs, which edgellm\.load runs .*--via optimum"),
    "graphs in a folder": ({"onnx/model.onnx": b""}, r"only onnx/model\.onnx: graphs"),
    "torch under another name": ({"weights.pt": 1}, r"only weights\.pt: .*rename the file to pytorch_model\.bin"),
    "lightning": ({"last.ckpt": 1}, r"MarianMTModel\.from_pretrained\(DIRECTORY\)\.save_pretrained\(OUT\)"),
    "safetensors under another name": ({"weights.safetensors": 1}, r"only weights\.safetensors: .*rename it to model"),
    "rust": ({"rust_model.ot": b""}, "another tool's weights; save it anew"),
    "several": ({f"{letter}.pt": 1 for letter in "abcde"}, r"only a\.pt, b\.pt, c\.pt and 2 more:"),
    "none": ({}, "has no weights: none of model.safetensors, .*download them"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_what_there_is_instead_and_what_to_do(case: str, tmp_path: Path) -> None:
    files, message = OTHERS[case]
    with pytest.raises(CheckpointNotFoundError, match=message):
        open_checkpoint(str(written(tmp_path, MARIAN, **files)))


def test_mistrals_own_files_without_a_config(tmp_path: Path) -> None:
    path = written(tmp_path, **{"consolidated.safetensors": 1, "params.json": {}})
    (path / "config.json").unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"only consolidated\.safetensors: .*with its config\.json"):
        open_checkpoint(str(path))


CLASSES = {
    "MarianMTModel.from_pretrained": MARIAN,
    "BertForMaskedLM.from_pretrained": {"model_type": "bert", "architectures": ["BertForMaskedLM", "X"]},
    "AutoModelForSeq2SeqLM.from_pretrained": {"model_type": "marian"},
    "AutoModelForSeq2SeqLM": {"is_encoder_decoder": True, "architectures": []},
    "with the class of transformers that it was trained as": {"model_type": "llama", "architectures": ["a b"]},
    "it was trained as": {"architectures": "x"},
}


@pytest.mark.parametrize("words", CLASSES)
def test_a_checkpoint_is_saved_anew_in_its_own_class(words: str) -> None:
    assert words in resaving(CLASSES[words])


def test_the_hub_is_asked_for_by_the_same_rules() -> None:
    names = {file.name for file in ORDER}
    for file in ORDER:
        assert find_weights("org/name", names, {}) == file
        names.remove(file.name)


def test_of_two_tensors_with_a_name_the_later_files_is_taken(tmp_path: Path) -> None:
    """As in transformers, which reads all of each file, in the order of their names, wherever the index puts them."""
    path = written(
        tmp_path, **{INDEX: {"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}, "a.safetensors": 1}
    )
    save_file({"w": np.zeros(2), "v": np.zeros(3), "unlisted": np.zeros(4)}, path / "b.safetensors")
    shapes = {name: tensor.shape for name, tensor in open_checkpoint(str(path)).tensors.items()}
    assert shapes == {"w": (2,), "v": (3,), "unlisted": (4,)}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_names_of_a_wrapper_are_refused(prefix: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    save_file({f"{prefix}a": np.zeros(2), f"{prefix}b": np.zeros(3)}, path / "model.safetensors")
    with pytest.raises(
        TensorError, match=f"names begin with '{prefix}'.*save model.{prefix}* in its place".replace(".'", r"\.'")
    ):
        open_checkpoint(str(path))


def test_weights_of_flax_in_safetensors_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, MARIAN)
    save_file({"params.w": np.zeros(2)}, path / "model.safetensors", {"format": "flax"})
    with pytest.raises(TensorError, match=r"weights of a Flax model; save it anew.*MarianMTModel"):
        open_checkpoint(str(path))


@pytest.mark.parametrize("name", ["model.safetensors", BIN])
def test_pointers_of_git_lfs(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, **{name: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"})
    with pytest.raises(CheckpointError, match=r"is a git-lfs pointer.*git lfs pull"):
        open_checkpoint(str(path))


@pytest.mark.parametrize("name", ["model.safetensors", BIN])
def test_weights_of_a_sentence_encoders_steps(name: str, tmp_path: Path) -> None:
    """SafeTensors come first here too."""
    path = written(tmp_path, **{"model.safetensors": 1, f"2_Dense/{name}": 3, f"2_Dense/{BIN}": 3})
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}
    modules = [{"path": step, "type": f"sentence_transformers.models.{kind}"} for step, kind in kinds.items()]
    (path / "modules.json").write_text(json.dumps(modules))
    if name != BIN:
        (path / "2_Dense" / BIN).write_bytes(b"no")
    assert {name: tensor.shape for name, tensor in open_checkpoint(str(path)).steps.items()} == {"2_Dense.w": (3,)}
