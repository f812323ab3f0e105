"""Exports of encoders: what calibration scales, what a report says, what damage comes to."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

import edgellm
import edgellm_export
from comparison import relative
from edgellm.cli import cli
from edgellm.errors import ExportError, QualityGateError
from edgellm.package.report import EncoderReport
from edgellm_export.calibration.rounding import Calibration, channel_scales
from edgellm_export.exporters.driver import Driver
from edgellm_export.float_run.layers import FloatLayer
from edgellm_export.quantize import blockwise
from encoder_checks import TOLERANCE, expected, inputs
from encoder_families import BY_NAME, CASES, save_checkpoint


def test_tensors_of_another_head_are_left_alone(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """A masked language model's weights, exported for its hidden states."""
    exported = edgellm_export.export(
        checkpoint("bert", "fill-mask"), tmp_path / "out", precision="fp32", task="feature-extraction"
    )
    assert exported.manifest.graphs["model"].outputs == ("last_hidden_state",)
    assert exported.report is not None
    assert exported.report.passed


@pytest.mark.parametrize(("name", "task"), CASES[::6])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_report_passes(
    name: str, task: str, precision: Any, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    exported = edgellm_export.export(checkpoint(name, task), tmp_path / "out", precision=precision)
    assert exported.report is not None
    assert exported.report.passed
    shown = CliRunner().invoke(cli, ["inspect", str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.stderr
    assert "cosine" in shown.stdout
    assert "verdict      passed" in shown.stdout


def test_a_damaged_quantizer_fails_the_gate(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrange = blockwise.arrange

    def upside_down(*what: Any) -> blockwise.Blocks:
        blocks = arrange(*what)
        return blockwise.Blocks(blocks.quants[::-1], blocks.scales, blocks.zero_points)

    monkeypatch.setattr(blockwise, "arrange", upside_down)
    result = CliRunner().invoke(
        cli, ["export", str(checkpoint("bert", "fill-mask")), str(tmp_path / "out"), "--no-calibration"]
    )
    assert (result.exit_code, result.stdout) == (6, "")
    assert "too far from the original: its logits differ by" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize(
    ("tensor", "value"),
    [("intermediate.dense.weight", 1e38), ("intermediate.dense.weight", np.nan), ("LayerNorm.bias", np.inf)],
)
def test_damaged_weights_end_in_one_error(
    tensor: str, value: float, precision: Any, reference: Callable[..., Any], tmp_path: Path
) -> None:
    """And in no warnings, which would be errors here."""
    model = copy.deepcopy(reference("bert", "feature-extraction"))
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "layer.1" in n and n.endswith(tensor)).view(-1)[:9] = value
    source = save_checkpoint(model, tmp_path / "checkpoint")
    with pytest.raises(QualityGateError, match=r"not numbers|differ by nan%"):
        edgellm_export.export(source, tmp_path / "out", precision=precision)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", BY_NAME)
def test_scales_change_nothing_in_float(
    name: str,
    checkpoint: Callable[..., Path],
    reference: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a norm or a value is divided by, exactly the layers behind it are multiplied by, and the residual too."""
    used: dict[str, Any] = {}

    def calibrated(driver: Any, *rest: Any) -> Calibration:
        """As for an integer package, but large, and nothing rounded."""
        rng = np.random.default_rng(0)

        def step(layer: FloatLayer, states: Any) -> Any:
            after, linears = layer.observed(states)
            found = channel_scales(linears)
            used.update({key: np.exp(rng.normal(0, 1, value.shape)).astype(np.float32) for key, value in found.items()})
            return after

        driver.recipe.original.through(inputs(name), step)
        return Calibration("test", used)

    monkeypatch.setattr(Driver, "_calibrated", calibrated)
    exported = edgellm_export.export(checkpoint(name, "feature-extraction"), tmp_path / "package", precision="fp32")
    # Before attention and inside it, before the MLP and inside a gated one; not where a linear layer stands before
    # the first, or layers share their matrices.
    family = name.partition("-")[0]
    counts = {"albert": 0, "electra": 8, "electra-square": 9, "modernbert": 11, "rembert": 8, "roformer-small": 8}
    assert len(used) == counts.get(name, counts.get(family, 9))
    found = cast(edgellm.EncoderModel, edgellm.load(exported.path, threads=1)).run(inputs(name))
    wanted = [expected(reference(name, "feature-extraction"), one)["last_hidden_state"] for one in inputs(name)]
    assert relative(np.concatenate([result.logits for result in found]), np.concatenate(wanted)) < TOLERANCE
    assert exported.report is not None
    assert max(layer.error for layer in exported.report.layers) < TOLERANCE


def test_a_table_that_is_not_of_sinusoids_is_refused(reference: Callable[..., Any], tmp_path: Path) -> None:
    """RoFormer's positions are computed; transformers takes those of the checkpoint."""
    model = copy.deepcopy(reference("roformer", "feature-extraction"))
    with torch.no_grad():
        model.encoder.embed_positions.weight[7, 3] += 0.1
    save_checkpoint(model, tmp_path / "checkpoint")
    with pytest.raises(edgellm.EdgellmError, match="is no table of sinusoids"):
        edgellm_export.export(tmp_path / "checkpoint", tmp_path / "package", precision="fp32")


def test_layers_that_share_their_matrices_do_so_in_the_package(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Once in the file, rounded by what the first of them reads, and in one format."""
    exported = edgellm_export.export(checkpoint("albert", "fill-mask"), tmp_path / "out")
    assert exported.report is not None
    assert exported.report.passed
    found = [(each.node, each.error) for each in exported.report.matrices if each.node.endswith("/ffn")]
    assert len(found) == 3
    assert len({error for _, error in found}) == 1
    graph = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False).graph
    assert len([each.name for each in graph.initializer if ".ffn.weight" in each.name]) == 2  # integers and scales
    with pytest.raises(ExportError, match="share their matrices"):
        edgellm_export.export(
            checkpoint("albert", "fill-mask"), tmp_path / "mixed", precision="mixed", max_size=1 << 30
        )


def test_channels_of_unlike_size_get_closer(reference: Callable[..., Any], tmp_path: Path) -> None:
    """As in trained models, a few of whose channels are much larger than the rest."""
    model = copy.deepcopy(reference("bert", "feature-extraction"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm" in name and "encoder" in name:
                parameter[::7] *= 30
    source = save_checkpoint(model, tmp_path / "checkpoint")

    def error(*, calibrate: bool) -> float:
        out = tmp_path / str(calibrate)
        report = edgellm_export.export(source, out, calibrate=calibrate).report
        assert isinstance(report, EncoderReport)
        return report.quality.error

    assert error(calibrate=True) < 0.8 * error(calibrate=False)
