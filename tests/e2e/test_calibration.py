"""Channel scales: no change in float, closer to the original in integers."""

from __future__ import annotations

import copy
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
from edgellm_export.calibration.rounding import Calibration, channel_scales
from edgellm_export.exporters.driver import Driver
from edgellm_export.float_run.layers import FloatLayer
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

    def calibrated(driver: Any, *rest: Any) -> Calibration:
        """As scales for an integer package would be, but large, and nothing rounded."""
        rng, original = np.random.default_rng(0), driver.recipe.original

        def step(layer: FloatLayer, states: Any) -> Any:
            after, linears = layer.observed(states)
            found = channel_scales(linears)
            used.update({key: np.exp(rng.normal(0, 1, value.shape)).astype(np.float32) for key, value in found.items()})
            return after

        original.through([np.arange(40) % original.family.shape.vocab_size], step)
        return Calibration("test", used)

    monkeypatch.setattr(Driver, "_calibrated", calibrated)
    out = edgellm_export.export(checkpoint(name), tmp_path / "package", precision="fp32", verify_quality=False).path
    model = edgellm.load(out, threads=1)
    # Before attention, before the MLP (often) and, where the MLP is gated, inside it; behind a convolution or a state.
    family, cache = BY_NAME[name], model.manifest.model.cache
    layers, recurrent = cache.num_layers, cache.num_own_layers - cache.num_attention_layers
    places = family.norms + family.gated
    if family.chooses:  # one for each expert that saw enough, and one that all see
        assert 2 * layers <= len(used) <= 8 * layers + recurrent
    else:
        assert len(used) == places * layers + recurrent
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
