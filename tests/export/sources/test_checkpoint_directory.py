from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from edgellm.errors import CheckpointError, CheckpointNotFoundError, UnsupportedModelError
from edgellm_export.sources.opening import open_checkpoint

A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(4, np.float16)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A directory with two shards and all text files."""
    path = tmp_path / "tiny"
    path.mkdir()
    put(path / "config.json", {"model_type": "llama"})
    save_file({"a": A}, path / "model-00001-of-00002.safetensors")
    save_file({"b": B}, path / "model-00002-of-00002.safetensors")
    put_index(path, {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})
    Tokenizer(WordLevel({"x": 0}, unk_token="x")).save(str(path / "tokenizer.json"))
    put(path / "tokenizer_config.json", {"chat_template": "{{ messages }}"})
    put(path / "generation_config.json", {"eos_token_id": 0})
    (path / "README.md").write_text("not carried")
    return path


def put(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data))


def put_index(path: Path, weight_map: Any) -> None:
    put(path / "model.safetensors.index.json", {"weight_map": weight_map})


def test_sharded_checkpoint(checkpoint: Path) -> None:
    opened = open_checkpoint(str(checkpoint))
    assert opened.config == {"model_type": "llama"}
    np.testing.assert_array_equal(opened.tensors["a"].rows(1, 2), A[1:])
    np.testing.assert_array_equal(opened.tensors["b"].rows(0, 4), B)
    assert set(opened.files) == {
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
    }
    assert opened.files["chat_template.jinja"] == b"{{ messages }}"
    assert opened.source["kind"] == "huggingface"
    assert opened.source["name"] == "tiny"
    assert opened.source["dtypes"] == ["F16", "F32"]
    assert set(opened.source["sha256"]) == {"config.json", "model.safetensors.index.json"}
    assert str(checkpoint.parent) not in json.dumps(opened.source)


def test_single_file_checkpoint(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors.index.json").unlink()
    save_file({"a": A}, checkpoint / "model.safetensors")
    assert set(open_checkpoint(str(checkpoint)).tensors) == {"a"}


def _drop_shard(path: Path) -> None:
    (path / "model-00002-of-00002.safetensors").unlink()


def _no_weights(path: Path) -> None:
    for file in path.glob("*.safetensors*"):
        file.unlink()


BROKEN = {
    "no config": (lambda p: (p / "config.json").unlink(), CheckpointNotFoundError, "has no config.json"),
    "config not JSON": (lambda p: (p / "config.json").write_text("{"), CheckpointError, "not valid JSON"),
    "config not an object": (lambda p: put(p / "config.json", []), CheckpointError, "expected an object"),
    "config in UTF-16": (lambda p: (p / "config.json").write_bytes(b"\xff\xfe{"), CheckpointError, "not valid JSON"),
    "quantized": (
        lambda p: put(p / "config.json", {"quantization_config": {"quant_method": "aqlm"}}),
        UnsupportedModelError,
        r"quant_method is 'aqlm'; edgellm reads .* gptq, .*; export the original",
    ),
    "absent shard": (_drop_shard, CheckpointNotFoundError, "lacks model-00002-of-00002.safetensors of the 2 files"),
    "tensor not in its shard": (
        lambda p: put_index(p, {"a": "model-00001-of-00002.safetensors", "c": "model-00001-of-00002.safetensors"}),
        CheckpointError,
        "promises tensors that are not there: c",
    ),
    "index without a map": (lambda p: put_index(p, None), CheckpointError, "no usable weight_map"),
    "index with an empty map": (lambda p: put_index(p, {}), CheckpointError, "no usable weight_map"),
    "shard name not text": (lambda p: put_index(p, {"a": 1}), CheckpointError, "no usable weight_map"),
    "shard above": (lambda p: put_index(p, {"a": "../x.safetensors"}), CheckpointError, "in its directory"),
    "shard above below": (lambda p: put_index(p, {"a": "a/../../x.safetensors"}), CheckpointError, "in its directory"),
    "shard elsewhere": (lambda p: put_index(p, {"a": "/etc/x.safetensors"}), CheckpointError, "in its directory"),
    "shard of Windows": (lambda p: put_index(p, {"a": "..\\x.safetensors"}), CheckpointError, "in its directory"),
    "shard another file": (lambda p: put_index(p, {"a": "config.json"}), CheckpointError, "in its directory"),
    "no weights": (_no_weights, CheckpointNotFoundError, "has no weights: none of model.safetensors"),
    "tokenizer damaged": (
        lambda p: (p / "tokenizer.json").write_text("{}"),
        CheckpointError,
        "tokenizer.json cannot be loaded",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_directories_say_what_is_wrong(checkpoint: Path, case: str) -> None:
    damage, error, message = BROKEN[case]
    damage(checkpoint)
    with pytest.raises(error, match=message):
        open_checkpoint(str(checkpoint))


def test_chat_templates_in_each_of_their_places(checkpoint: Path) -> None:
    """A tokenizer's files win over its config; chat_template.json is a processor's, which transformers' tokenizers do
    not read."""

    def templates() -> dict[str, bytes]:
        files = open_checkpoint(str(checkpoint)).files
        return {name: content for name, content in files.items() if name.endswith(".jinja")}

    put(checkpoint / "tokenizer_config.json", {})
    put(checkpoint / "chat_template.json", {"chat_template": "J"})
    assert templates() == {"chat_template.jinja": b"J"}
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    put(checkpoint / "tokenizer_config.json", {"chat_template": named})
    assert templates() == {"chat_template.jinja": b"D", "additional_chat_templates/tool_use.jinja": b"T"}
    (checkpoint / "additional_chat_templates").mkdir()
    (checkpoint / "additional_chat_templates" / "rag.jinja").write_text("R")
    assert templates() == {"additional_chat_templates/rag.jinja": b"R"}
    (checkpoint / "chat_template.jinja").write_text("newest")
    assert templates() == {"chat_template.jinja": b"newest", "additional_chat_templates/rag.jinja": b"R"}


def test_a_template_whose_name_is_no_file_name_is_refused(checkpoint: Path) -> None:
    put(checkpoint / "tokenizer_config.json", {"chat_template": [{"name": "../x", "template": "T"}]})
    with pytest.raises(CheckpointError, match=r"named '../x', which cannot be the name of a file"):
        open_checkpoint(str(checkpoint))


@pytest.mark.parametrize("source", ["no-such-directory", "a/b/c", "./x/y", "models/x.gguf", "bad id/x"])
def test_what_is_neither_path_nor_hub_id_is_not_found(source: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointNotFoundError, match=r"expected a checkpoint directory, a \.gguf file, or a hub id"):
        open_checkpoint(source)


def test_an_existing_path_wins_over_a_hub_id(checkpoint: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(checkpoint.parent.parent)
    relative = f"{checkpoint.parent.name}/{checkpoint.name}"
    assert open_checkpoint(relative).source["name"] == "tiny"
    with pytest.raises(CheckpointError, match="local path"):
        open_checkpoint(relative, revision="main")


def test_a_file_that_is_no_checkpoint(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="give its directory"):
        open_checkpoint(str(checkpoint / "model-00001-of-00002.safetensors"))
    with pytest.raises(CheckpointError, match="neither a checkpoint directory nor a GGUF file"):
        open_checkpoint(str(checkpoint / "README.md"))


def test_pickles_beside_safetensors_are_left_alone(checkpoint: Path) -> None:
    shutil.copy(checkpoint / "README.md", checkpoint / "pytorch_model.bin")
    assert set(open_checkpoint(str(checkpoint)).tensors) == {"a", "b"}
