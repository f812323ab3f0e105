"""Channel scales: no change in float, closer to the original in integers."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgellm
import edgellm_export
from comparison import prompt, reference_logits, relative
from edgellm.package.report import GenerationThresholds
from edgellm_export.blocks.channels import ChannelMoves
from edgellm_export.calibration.rounding import (
    Calibration,
    channel_scales,
    channel_shifts,
    channel_sizes,
    scale_of,
    shifted,
)
from edgellm_export.calibration.texts import CALIBRATION_TOPICS, EVALUATION_TOPICS
from edgellm_export.float_run.decoder import DecoderRun
from edgellm_export.float_run.layers import FloatLayer, ObservedLinear
from edgellm_export.quantize import scheme_for
from edgellm_export.quantize.formats import RowFormat
from edgellm_export.verification.report import THRESHOLDS
from families import BY_NAME, FAMILIES, save_checkpoint

LOGITS_TOLERANCE = 2e-5  # as without scales


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_scales_change_nothing_in_float(
    name: str,
    checkpoint: Callable[[str], Path],
    reference: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a norm is divided by, exactly the layers behind it are multiplied by: in every family."""
    used: dict[str, Any] = {}

    def calibrated(original: DecoderRun, *rest: Any) -> Calibration:
        """As scales for an integer package would be, but large, and nothing rounded."""
        rng = np.random.default_rng(0)

        def step(layer: FloatLayer, states: Any) -> Any:
            after, linears = layer.observed(states)
            found = channel_scales(linears)
            used.update({key: np.exp(rng.normal(0, 1, value.shape)).astype(np.float32) for key, value in found.items()})
            return after

        original.through([np.arange(12) % original.family.shape.vocab_size], step)
        return Calibration("test", ChannelMoves(used))

    float_scheme = dataclasses.replace(scheme_for("fp32", "cpu"), candidates=(RowFormat(),))
    monkeypatch.setattr("edgellm_export.exporters.recipe.scheme_for", lambda precision, target: float_scheme)
    monkeypatch.setattr("edgellm_export.exporters.decoder.calibrate_layers", calibrated)
    out = edgellm_export.export(checkpoint(name), tmp_path / "package", precision="fp32", verify_quality=False).path
    model = edgellm.load(out, threads=1)
    # Before attention, before the MLP and, where the MLP is gated, inside it.
    places = 3 if BY_NAME[name].gated else 2
    assert len(used) == places * model.manifest.model.cache.num_layers
    ids = prompt(name, 30)
    assert relative(model.logits(ids), reference_logits(reference(name), ids)) < LOGITS_TOLERANCE


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_model_with_uneven_channels_gets_closer(
    precision: str, reference: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained models have a few channels much larger than the rest; a random one is given some."""
    # int4 of random weights is hopeless by itself
    monkeypatch.setitem(THRESHOLDS, precision, GenerationThresholds(1.0, 0.0))
    model = copy.deepcopy(reference("llama"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("layernorm.weight"):
                parameter[::7] *= 6
    save_checkpoint(model, tmp_path / "checkpoint")
    found = {}
    for calibrate in (False, True):
        exported = edgellm_export.export(
            tmp_path / "checkpoint", tmp_path / str(calibrate), precision=precision, calibrate=calibrate
        )
        assert exported.report is not None
        found[calibrate] = exported.report.quality.kl_divergence
        assert (exported.report.calibration == "none") == (not calibrate)
    assert found[True] < 0.8 * found[False]


def test_without_a_tokenizer_there_is_no_calibration(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        (source / name).write_bytes((checkpoint("llama") / name).read_bytes())
    out = edgellm_export.export(source, tmp_path / "package").path
    assert json.loads((out / "report.json").read_text())["calibration"] == "none"


def test_texts_are_apart() -> None:
    assert not set(CALIBRATION_TOPICS) & set(EVALUATION_TOPICS)


def test_scales_of_silent_and_damaged_channels() -> None:
    scale = scale_of(np.array([0.0, 1.0, 1.0, 4.0]))
    assert np.isfinite(scale).all()
    assert scale[0] > 0.01 * scale[1]
    assert np.prod(scale.astype(np.float64)) == pytest.approx(1, rel=1e-5)
    assert (scale_of(np.array([np.nan, 1.0])) == 1).all()


def test_shifts_are_the_middles_of_ranges() -> None:
    values = np.linspace([0, -1], [4, 2], 2001, dtype=np.float32)
    values[7] = 1000  # one token in two thousand says nothing
    layers = [ObservedLinear(name, name, False, [values[:900].copy(), values[900:]]) for name in "ab"]
    layers.append(ObservedLinear("c", None, False, [values]))
    layers[1].inputs[0][3, 1] = np.nan
    shifts = channel_shifts(layers[:1])
    np.testing.assert_allclose(shifts["a"], [2, 0.5], atol=0.01)
    assert not channel_shifts(layers)["b"].any()
    moved = shifted(layers, shifts)
    np.testing.assert_allclose(moved[0].inputs[1], values[900:] - shifts["a"])
    assert moved[2] is layers[2]


def test_first_tokens_count_by_their_largest_only() -> None:
    values = np.ones((20, 2), np.float32)
    values[0] = [50, 5]
    np.testing.assert_allclose(channel_sizes([values]), [5, 1])
    assert np.isfinite(channel_sizes([values[:2]])).all()  # shorter than what is set apart
