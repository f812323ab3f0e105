"""One checkpoint in each format of weights: the packages are the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.numpy import save_file
from safetensors.torch import load_file

import edgellm
import edgellm_export
import encoder_decoder_families
import encoder_families
import families
from weights.tensorflow_files import write_tensorflow

SAVERS: dict[str, Callable[[str], Any]] = {
    "llama": lambda name: (families.make_model(families.BY_NAME[name]), families.save_checkpoint),
    "gpt2": lambda name: (families.make_model(families.BY_NAME[name]), families.save_checkpoint),
    "bert": lambda name: (encoder_families.make_model(name, "fill-mask"), encoder_families.save_checkpoint),
    "t5": lambda name: encoder_decoder(name),
    "marian": lambda name: encoder_decoder(name),
}


def encoder_decoder(name: str) -> Any:
    model = encoder_decoder_families.make_model(encoder_decoder_families.BY_NAME[name])
    return model, encoder_decoder_families.save_checkpoint


@pytest.fixture(scope="module", params=list(SAVERS))
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in SafeTensors."""
    model, save = SAVERS[request.param](request.param)
    path: Path = tmp_path_factory.mktemp("saved") / request.param
    save(model, path)
    return path


@pytest.fixture(scope="module")
def content(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return packaged(saved, tmp_path_factory.mktemp("package") / "out")


def packaged(source: Path, out: Path) -> dict[str, bytes]:
    """The graphs and weights of a package."""
    edgellm_export.export(source, out, precision="fp32", verify_quality=False)
    return {file.name: file.read_bytes() for file in out.iterdir() if ".onnx" in file.name}


def one_file(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    torch.save(tensors, path / "pytorch_model.bin")


def old_format(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    torch.save(tensors, path / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def in_parts(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    index = {}
    for number in (1, 2, 3):
        names = list(tensors)[number - 1 :: 3]
        file = f"pytorch_model-{number:05}-of-00003.bin"
        torch.save({name: tensors[name] for name in names}, path / file)
        index |= dict.fromkeys(names, file)
    (path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def stored_transposed(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Each matrix is the transpose of what lies in the file."""
    torch.save(
        {name: t.T.contiguous().T if t.ndim == 2 else t for name, t in tensors.items()}, path / "pytorch_model.bin"
    )


def with_old_names(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """BERT's of 2018; other families have none of these names."""
    olds = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    made = {}
    for name, tensor in tensors.items():
        old = next((end for end in olds if name.endswith(end)), "")
        made[name.removesuffix(old) + olds.get(old, "")] = tensor
    torch.save(made, path / "pytorch_model.bin")


WRITERS = [one_file, old_format, in_parts, stored_transposed, with_old_names]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_pytorch_files(write: Callable[..., None], saved: Path, content: dict[str, bytes], tmp_path: Path) -> None:
    source = shutil.copytree(saved, tmp_path / "source")
    write(source, load_file(source / "model.safetensors"))
    (source / "model.safetensors").unlink()
    assert packaged(source, tmp_path / "out") == content


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5", "t5-gated"])
def test_tensorflow_files(family: str, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    tensors = write_tensorflow(tmp_path / "tensorflow", family)
    (tmp_path / "torch").mkdir()
    shutil.copy(tmp_path / "tensorflow" / "config.json", tmp_path / "torch")
    save_file(tensors, tmp_path / "torch" / "model.safetensors")
    assert packaged(tmp_path / "tensorflow", tmp_path / "a") == packaged(tmp_path / "torch", tmp_path / "b")


def test_a_marian_model_as_they_were_published(tmp_path: Path) -> None:
    """A PyTorch file of the old format and nothing else, with what today's transformers no longer saves: the table of
    positions, the embedding under all of its names."""
    model, save = SAVERS["marian"]("marian")
    source = tmp_path / "opus-mt"
    save(model, source)
    (source / "model.safetensors").unlink()
    tensors = model.state_dict()
    assert {
        "model.encoder.embed_positions.weight",
        "model.decoder.embed_tokens.weight",
        "lm_head.weight",
    } <= tensors.keys()
    torch.save(tensors, source / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    edgellm_export.export(source, tmp_path / "package", precision="fp32")
    found = edgellm.load(tmp_path / "package", threads=1)
    ids = [5, 9, 77, 31, 2]
    expected = model.generate(torch.tensor([ids]), max_new_tokens=12, num_beams=3, do_sample=False)
    options = {"max_new_tokens": 12, "num_beams": 3}
    assert [2, *found.generate(ids, **options).tokens] == expected[0].tolist()  # transformers begins with the start
    assert isinstance(model, hf.MarianMTModel)
