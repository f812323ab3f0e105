"""Exports with LoRA adapters, from the command line to the tokens: the same as transformers with the merged weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.numpy import save_file

import edgellm
import edgellm_export
from adapter_files import RANK, save_adapter
from comparison import prompt, reference_logits, relative
from edgellm.cli import cli
from edgellm.errors import ExportError
from edgellm_export.adapters.checkpoint import merge_adapters, open_adapters, task_of_adapters
from edgellm_export.sources.opening import open_checkpoint
from families import BY_NAME, make_model

TARGETS: dict[str, tuple[str, ...]] = {
    "llama": ("q_proj", "down_proj"),
    "gpt2": ("c_attn", "c_proj"),
    "phi3": ("qkv_proj", "gate_up_proj"),
    "lfm2": ("in_proj", "out_proj", "w1"),
    "gemma3n": ("q_proj", "linear_left", "per_layer_projection"),
    "granitemoehybrid-mamba": ("in_proj", "out_proj", "q_proj"),
}
FAMILIES = list(TARGETS)


@torch.no_grad()
def tuned(name: str, *changes: tuple[float, dict[str, np.ndarray]]) -> Any:
    """A family's model with weighted changes."""
    model = make_model(BY_NAME[name])
    for weight, added in changes:
        for module, change in added.items():
            model.get_submodule(module).weight += weight * torch.tensor(change)
    return model


def edgellm_command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_the_merged_weights(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    first = save_adapter(make_model(BY_NAME[name]), tmp_path / "first", TARGETS[name])
    second = save_adapter(make_model(BY_NAME[name]), tmp_path / "second", TARGETS[name][:1], seed=1)
    arguments = ["--adapter", tmp_path / "first", "--adapter", f"{tmp_path / 'second'}=-0.5"]
    result = edgellm_command("export", checkpoint(name), tmp_path / "out", "--precision", "fp32", *arguments)
    assert result.exit_code == 0, result.output
    ids = prompt(name, 40)
    expected = reference_logits(tuned(name, (1, first), (-0.5, second)), ids)
    assert relative(edgellm.load(tmp_path / "out", threads=1).logits(ids), expected) < 1e-4
    assert relative(reference_logits(make_model(BY_NAME[name]), ids), expected) > 0.1


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_calibration_and_comparison_are_with_the_merged_model(
    precision: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    added = save_adapter(make_model(BY_NAME["llama"]), tmp_path / "tuned", TARGETS["llama"])
    exported = edgellm_export.export(
        checkpoint("llama"), tmp_path / "out", precision=precision, adapters=[tmp_path / "tuned"]
    )
    assert exported.report is not None
    ids = prompt("llama", 40)
    found = edgellm.load(tmp_path / "out", threads=1).logits(ids)
    with_adapter, without = (reference_logits(tuned("llama", *each), ids) for each in ([(1.0, added)], []))
    assert np.linalg.norm(found - with_adapter) < 0.5 * np.linalg.norm(found - without)


def test_manifest_and_commands_name_the_adapter(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    save_adapter(make_model(BY_NAME["llama"]), tmp_path / "tuned", TARGETS["llama"])
    given = f"{tmp_path / 'tuned'}=0.25"
    result = edgellm_command("export", checkpoint("llama"), tmp_path / "out", "--adapter", given, "--no-verify")
    assert "adapter      tuned, weight 0.25, trained on org/base" in result.output
    (adapter,) = json.loads((tmp_path / "out" / "edgellm.json").read_text())["source"]["adapters"]
    assert {key: adapter[key] for key in ("name", "weight", "base")} == {
        "name": "tuned",
        "weight": 0.25,
        "base": "org/base",
    }
    assert set(adapter["sha256"]) == {"adapter_config.json", "adapter_model.safetensors"}
    inspected = edgellm_command("inspect", tmp_path / "out")
    assert "adapter      tuned, weight 0.25, trained on org/base" in inspected.output


def test_a_plan_has_the_size_of_the_export(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    save_adapter(make_model(BY_NAME["llama"]), tmp_path / "tuned", TARGETS["llama"])
    planned = edgellm_export.plan(checkpoint("llama"), tmp_path / "out", adapters=[tmp_path / "tuned"])
    assert not (tmp_path / "out").exists()
    without = edgellm_export.plan(checkpoint("llama"), tmp_path / "out")
    assert planned.prediction.files["model.onnx.data"] == without.prediction.files["model.onnx.data"]
    assert planned.prediction.manifest.source["adapters"][0]["name"] == "tuned"


def test_a_gguf_file_is_a_base_too(smollm2_gguf: Path, tmp_path: Path) -> None:
    shapes = {"model.layers.3.self_attn.q_proj": (576, 576), "model.layers.3.mlp.down_proj": (576, 1536)}
    generator, tensors = np.random.default_rng(0), {}
    for name, (outputs, inputs) in shapes.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = generator.normal(size=(RANK, inputs)).astype(np.float32)
        tensors[f"base_model.model.{name}.lora_B.weight"] = generator.normal(size=(outputs, RANK)).astype(np.float32)
    (tmp_path / "tuned").mkdir()
    save_file(tensors, tmp_path / "tuned" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["q_proj", "down_proj"]}
    (tmp_path / "tuned" / "adapter_config.json").write_text(json.dumps(config))
    opened = open_checkpoint(str(smollm2_gguf))
    changed = merge_adapters(opened, open_adapters([tmp_path / "tuned"]))
    for name, (outputs, _) in shapes.items():
        before, after = (each.tensors[f"{name}.weight"].rows(0, outputs) for each in (opened, changed))
        a, b = (tensors[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "AB")
        np.testing.assert_allclose(after, before + b @ a, rtol=1e-4, atol=1e-5)


def test_what_exists_is_a_path_whatever_is_in_its_name(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    save_adapter(make_model(BY_NAME["llama"]), tmp_path / "lr=0.5", TARGETS["llama"])
    for given, weight in (("lr=0.5", 1), ("lr=0.5=2", 2)):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        result = edgellm_command(
            "export", checkpoint("llama"), tmp_path / "out", "--adapter", tmp_path / given, "--no-verify"
        )
        assert result.exit_code == 0, result.output
        (adapter,) = json.loads((tmp_path / "out" / "edgellm.json").read_text())["source"]["adapters"]
        assert (adapter["name"], adapter["weight"]) == ("lr=0.5", weight)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--adapter", "{}=much"], 2, "'much' is not a weight; expected a number behind ="),
        (["--adapter", "{}=nan"], 5, "expected a number"),
        (["--adapter", "{}/nowhere"], 4, "no adapter at"),
        (["--adapter", "{}", "--via", "optimum"], 5, "for --via optimum, merge them with PEFT first"),
        (["--adapter", "{}", "--adapter", "{}/dora"], 5, "is a DoRA adapter"),
        (["--adapter", "{}/dora=2"], 5, "is a DoRA adapter"),
    ],
)
def test_bad_arguments(
    arguments: list[str], code: int, message: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    save_adapter(make_model(BY_NAME["llama"]), tmp_path / "tuned", TARGETS["llama"])
    save_adapter(make_model(BY_NAME["llama"]), tmp_path / "tuned" / "dora", TARGETS["llama"], use_dora=True)
    given = [argument.format(tmp_path / "tuned") for argument in arguments]
    result = edgellm_command("export", checkpoint("llama"), tmp_path / "out", *given)
    assert (result.exit_code, message in " ".join(result.output.split())) == (code, True), result.output
    assert not (tmp_path / "out").exists()


def test_adapters_for_different_tasks_are_refused(tmp_path: Path) -> None:
    model = make_model(BY_NAME["llama"])
    for kind in ("SEQ_CLS", "TOKEN_CLS"):
        save_adapter(model, tmp_path / kind, TARGETS["llama"], task_type=kind)
    opened = open_adapters([tmp_path / "SEQ_CLS", tmp_path / "TOKEN_CLS"])
    with pytest.raises(ExportError, match="for different tasks, text-classification, token-classification"):
        task_of_adapters(opened, {})
