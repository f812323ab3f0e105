"""Mixtures of experts: what is particular to them, beside the checks that all families go through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import edgellm
import edgellm_export
from comparison import prompt
from edgellm.inspection.graph_weights import graph_weights
from edgellm.package.report import GenerationThresholds
from edgellm_export.float_run import pieces
from edgellm_export.float_run.segments import Segment
from edgellm_export.verification.report import THRESHOLDS
from families import BY_NAME, make_model, save_checkpoint

NAME, SPARSE, EXPERTS, CHOSEN, HIDDEN, SIZE = "qwen3_moe", 3, 5, 2, 48, 40
EXPERT_WEIGHTS = 3 * HIDDEN * SIZE


def stacked(checkpoint: Path, out: Path) -> Path:
    """The same with one tensor for the experts' gates and ups and one for their downs, as transformers 5 has them in
    memory."""
    tensors = load_file(checkpoint / "model.safetensors")
    for layer in range(SPARSE):
        experts = f"model.layers.{layer}.mlp.experts"
        parts = {
            part: torch.stack([tensors.pop(f"{experts}.{i}.{part}_proj.weight") for i in range(EXPERTS)])
            for part in ("gate", "up", "down")
        }
        tensors[f"{experts}.gate_up_proj"] = torch.cat([parts["gate"], parts["up"]], dim=1)
        tensors[f"{experts}.down_proj"] = parts["down"]
    out.mkdir()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (out / name).write_bytes((checkpoint / name).read_bytes())
    return out


def exported(checkpoint: Path, out: Path, **options: Any) -> edgellm.Model:
    path = edgellm_export.export(checkpoint, out, **{"precision": "fp32", "verify_quality": False, **options}).path
    return edgellm.load(path, threads=1)


def test_experts_in_one_tensor(
    checkpoint: Callable[[str], Path], load: Callable[..., edgellm.Model], tmp_path: Path
) -> None:
    model, ids = exported(stacked(checkpoint(NAME), tmp_path / "stacked"), tmp_path / "package"), prompt(NAME, 20)
    np.testing.assert_array_equal(model.logits(ids), load(NAME).logits(ids))


def test_experts_that_no_token_chose_are_not_multiplied(tmp_path: Path) -> None:
    """What is no number in their weights is nowhere in the results."""
    model, ids = make_model(BY_NAME[NAME]), prompt(NAME, 1)
    with torch.no_grad():
        expected = model(torch.tensor(ids[None]), output_router_logits=True)
        for layer, scores in zip(model.model.layers, expected.router_logits, strict=True):
            for expert in set(range(EXPERTS)) - set(scores[0].topk(CHOSEN).indices.tolist()):
                for parameter in layer.mlp.experts[expert].parameters():
                    parameter.fill_(torch.nan)
    found = exported(save_checkpoint(model, tmp_path / "checkpoint"), tmp_path / "package").logits(ids)
    np.testing.assert_allclose(found, expected.logits[0].numpy(), rtol=0, atol=1e-4)


def test_a_step_reads_the_weights_of_those_that_are_chosen(package: Callable[..., Path]) -> None:
    found = graph_weights(package(NAME, "fp32") / "model.onnx")
    (total,) = (sum(p.numel() for p in make_model(BY_NAME[NAME]).parameters()),)
    assert found.parameters == total
    resting = SPARSE * EXPERT_WEIGHTS * (EXPERTS - CHOSEN)
    looked_up = 131 * HIDDEN  # the embedding, beside a head of its own
    assert found.bytes_per_step == pytest.approx(4 * (total - resting - looked_up), rel=0.01)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_one_expert_is_in_memory_at_a_time(
    precision: str, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the original is run, and while the package's layers are compared with it."""
    monkeypatch.setitem(THRESHOLDS, precision, GenerationThresholds(1.0, 0.0))
    weights: list[int] = []

    def counted(built: Any, **options: Any) -> Segment:
        weights.append(sum(int(np.prod(each.weight.shape)) for each in built.projections))
        return Segment(built, **options)

    monkeypatch.setattr(pieces, "Segment", counted)
    path = edgellm_export.export(checkpoint(NAME), tmp_path / "package", precision=precision).path
    attention = HIDDEN * (6 + 2 + 2 + 6) * 32 + HIDDEN * EXPERTS
    assert max(weights) == max(EXPERT_WEIGHTS, attention)
    report = json.loads((path / "report.json").read_text())
    errors = {each["node"]: each["error"] for each in report["matrices"]}
    ours = [error for name, error in errors.items() if "/experts." in name]
    assert len(ours) == SPARSE * EXPERTS * 3
    assert all(0 < error < 0.3 for error in ours if error is not None)
    assert any(error is not None for error in ours)
