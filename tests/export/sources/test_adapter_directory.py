"""Adapters in directories and on the hub, and what is said where one stands in the place of a model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from edgellm.errors import CheckpointError, CheckpointNotFoundError
from edgellm_export.sources.opening import open_adapter, open_checkpoint

CONFIG = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 2}
A = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    path = tmp_path / "tuned"
    path.mkdir()
    put(path / "adapter_config.json", CONFIG)
    save_file({"a": A}, path / "adapter_model.safetensors")
    return path


def put(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data))


def test_an_adapter_directory(adapter: Path) -> None:
    opened = open_adapter(str(adapter))
    assert opened.config == CONFIG
    np.testing.assert_array_equal(opened.tensors["a"].rows(1, 2), A[1:])
    assert opened.files == {}
    hashes = {
        name: hashlib.sha256((adapter / name).read_bytes()).hexdigest()
        for name in ("adapter_config.json", "adapter_model.safetensors")
    }
    assert opened.source == {"name": "tuned", "base": "org/base", "sha256": hashes}


def test_a_tokenizer_beside_it_is_read(adapter: Path) -> None:
    Tokenizer(WordLevel({"x": 0}, unk_token="x")).save(str(adapter / "tokenizer.json"))
    put(adapter / "tokenizer_config.json", {"chat_template": "{{ messages }}"})
    assert set(open_adapter(str(adapter)).files) == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("org/base", "org/base"),
        ("/home/me/models/base/", "base"),
        (r"C:\models\base", "base"),
        ("", None),
        (None, None),
    ],
)
def test_paths_of_other_machines_are_no_provenance(adapter: Path, base: str | None, name: str | None) -> None:
    put(adapter / "adapter_config.json", {**CONFIG, "base_model_name_or_path": base})
    assert open_adapter(str(adapter)).source.get("base") == name


def test_tensors_in_pytorchs_own_file(adapter: Path) -> None:
    torch.save({"a": torch.tensor(A + 1)}, adapter / "adapter_model.bin")
    np.testing.assert_array_equal(open_adapter(str(adapter)).tensors["a"].rows(0, 2), A)
    (adapter / "adapter_model.safetensors").unlink()
    opened = open_adapter(str(adapter))
    np.testing.assert_array_equal(opened.tensors["a"].rows(0, 2), A + 1)
    assert set(opened.source["sha256"]) == {"adapter_config.json", "adapter_model.bin"}


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_what_is_missing_is_named(adapter: Path, name: str) -> None:
    (adapter / name).unlink()
    with pytest.raises(CheckpointNotFoundError, match=f"tuned has (no|neither) {name}"):
        open_adapter(str(adapter))


def test_what_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"no adapter at .*nowhere; expected a directory"):
        open_adapter(str(tmp_path / "nowhere"))


def test_a_home_of_nobody_is_no_path() -> None:
    for opened in (open_adapter, open_checkpoint):
        with pytest.raises(CheckpointNotFoundError, match=r"no (adapter|checkpoint) at ~nosuchuser/model; expected"):
            opened("~nosuchuser/model")


def test_an_adapter_given_as_the_model_says_what_it_is_and_names_its_base(adapter: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(adapter))
    assert str(caught.value) == (
        f"{adapter} is a LoRA adapter of org/base, not a model; export its base with the adapter: "
        f"`edgellm export org/base OUT --adapter {adapter}`"
    )


def test_an_adapter_without_a_base_or_of_another_kind_says_so(adapter: Path) -> None:
    put(adapter / "adapter_config.json", {"peft_type": "IA3"})
    with pytest.raises(
        CheckpointError, match=r"is an adapter \(IA3\) of a base that it does not name.*export BASE OUT"
    ):
        open_checkpoint(str(adapter))


def test_a_model_beside_an_adapter_is_not_taken_for_what_transformers_would_load(adapter: Path) -> None:
    put(adapter / "config.json", {"model_type": "llama"})
    message = r"holds a model and a LoRA adapter of org/base; .* a copy without adapter_config"
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(adapter))
