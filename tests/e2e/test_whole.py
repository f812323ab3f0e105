"""The text models inside of models that read images, too, against these as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import edgellm
import edgellm_export
from comparison import reference_logits, relative
from edgellm.cli import cli
from edgellm.errors import CheckpointError, InputError, TensorError
from edgellm_export.architectures.whole import WHOLES as NATIVE
from edgellm_export.architectures.whole import text_model
from edgellm_export.sources.opening import open_checkpoint
from families import save_tokenizer, tiny_tokenizer
from whole_models import WHOLES, make_whole

Shared = Callable[[str, Callable[[Path], Any]], Path]
LOGITS_TOLERANCE = 2e-5
IMAGE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is that?"}]}]


SOUND = [{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "What is that?"}]}]


@pytest.fixture(scope="session")
def whole() -> Callable[[str], Any]:
    return cache(make_whole)


def save(model: Any, path: Path) -> Path:
    model.save_pretrained(path)
    save_tokenizer(tiny_tokenizer(131), path)
    return path


@pytest.fixture(scope="session")
def saved(whole: Callable[[str], Any], shared: Shared) -> Callable[[str], Path]:
    return lambda name: shared(f"checkpoints/whole-{name}", lambda path: save(whole(name), path))


@pytest.fixture(scope="session")
def package(saved: Callable[[str], Path], shared: Shared) -> Callable[[str], Path]:
    options: dict[str, Any] = {"precision": "fp32", "verify_quality": False}
    return lambda name: shared(
        f"packages/whole-{name}", lambda path: edgellm_export.export(saved(name), path, **options)
    )


def test_there_is_one_of_each() -> None:
    assert sorted(WHOLES) == sorted(NATIVE)


@pytest.mark.parametrize("name", WHOLES)
@torch.no_grad()
def test_text_gets_what_the_whole_gives_it(
    name: str, whole: Callable[[str], Any], package: Callable[[str], Path]
) -> None:
    model, ids = edgellm.load(package(name), threads=1), np.random.default_rng(0).integers(3, 131, 50)
    assert relative(model.logits(ids), reference_logits(whole(name), ids)) < LOGITS_TOLERANCE
    tokens = torch.tensor(ids[None, :20])
    mask = torch.ones_like(tokens)
    out = whole(name).generate(input_ids=tokens, attention_mask=mask, max_new_tokens=30, do_sample=False)[0, 20:]
    assert list(model.generate(ids[:20], max_new_tokens=30, do_sample=False).tokens) == out.tolist()


def in_memory(name: str) -> str:
    """As the classes of transformers call them since 4.52."""
    for old in ("language_model.model.", "model."):
        if name.startswith(old) and not name.startswith(("model.language_model.", "model.v", "model.text_model.")):
            return f"model.language_model.{name.removeprefix(old)}"
    if name.endswith("lm_head.weight"):
        return "lm_head.weight"
    return name if name.startswith("model.") else f"model.{name}"


def inside(name: str) -> str:
    """As they were called before."""
    name = in_memory(name).removeprefix("model.")
    if name.startswith("language_model."):
        return f"language_model.model.{name.removeprefix('language_model.')}"
    return f"language_model.{name}" if name == "lm_head.weight" else name


def without_head(name: str) -> str:
    """As those of a model without a head."""
    return in_memory(name).removeprefix("model.")


@pytest.mark.parametrize("spelling", [in_memory, inside, without_head])
@pytest.mark.parametrize("name", ["gemma3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "llava_next", "mistral3"])
def test_names_of_all_versions_are_read(
    name: str, spelling: Callable[[str], str], saved: Callable[[str], Path], tmp_path: Path
) -> None:
    expected = text_model(open_checkpoint(str(saved(name)))).tensors
    tensors = load_file(saved(name) / "model.safetensors")
    save_file({spelling(key): tensor for key, tensor in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((saved(name) / "config.json").read_bytes())
    found = text_model(open_checkpoint(str(tmp_path)))
    assert found.tensors.keys() == expected.keys()
    for key, tensor in expected.items():
        rows = tensor.shape[0]
        np.testing.assert_array_equal(found.tensors[key].rows(0, rows), tensor.rows(0, rows))


def test_older_configs_have_the_text_models_keys_in_one_with_the_rest(saved: Callable[[str], Path]) -> None:
    checkpoint = open_checkpoint(str(saved("qwen2_vl")))
    text = text_model(checkpoint).config
    config = {key: value for key, value in checkpoint.config.items() if key != "text_config"}
    flat = {**text, **config, "model_type": "qwen2_vl"}
    found = text_model(_with(checkpoint, flat)).config
    assert {key: found[key] for key in text} == dict(text)
    with pytest.raises(CheckpointError, match="text_config is None, expected the object that describes the text"):
        text_model(_with(open_checkpoint(str(saved("llava"))), {"model_type": "llava"}))


def _with(checkpoint: Any, config: Mapping[str, Any]) -> Any:
    from dataclasses import replace

    return replace(checkpoint, config=config)


def test_a_tensor_of_no_known_part_is_left_over(saved: Callable[[str], Path], tmp_path: Path) -> None:
    tensors = load_file(saved("llava") / "model.safetensors")
    save_file({**tensors, "touch_tower.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((saved("llava") / "config.json").read_bytes())
    with pytest.raises(TensorError, match=r"not used \(1\):\n    touch_tower.weight"):
        edgellm_export.export(tmp_path, tmp_path / "out", precision="fp32", verify_quality=False)


def test_the_export_says_what_it_left_out(saved: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(cli, ["export", str(saved("gemma3")), str(out), "--precision", "fp32"])
    assert result.exit_code == 0, result.output
    line = "text alone   of gemma3, without multi_modal_projector, vision_tower; images are refused"
    assert line in result.output.splitlines()
    manifest = json.loads((out / "edgellm.json").read_text())
    assert manifest["model_type"] == "gemma3_text"
    assert manifest["source"]["text_of"] == "gemma3"
    assert manifest["source"]["left_out"] == ["multi_modal_projector", "vision_tower"]
    assert line in CliRunner().invoke(cli, ["inspect", str(out)]).output.splitlines()


def test_a_model_that_hears_says_so(package: Callable[[str], Path]) -> None:
    parts = "audio_tower, embed_audio, embed_vision, vision_tower"
    line = f"text alone   of gemma3n, without {parts}; images and audio are refused"
    assert line in CliRunner().invoke(cli, ["inspect", str(package("gemma3n"))]).output.splitlines()


def test_images_are_refused(package: Callable[[str], Path], tmp_path: Path) -> None:
    model = edgellm.load(package("smolvlm"), threads=1)
    with pytest.raises(InputError, match=r"messages\[0\].content\[0\] is a part of type 'image', and this model reads"):
        model.chat(IMAGE)
    with pytest.raises(InputError, match=r"messages\[0\].content\[0\] is a part of type 'audio', and this model reads"):
        edgellm.load(package("gemma3n"), threads=1).chat(SOUND)
