"""Whisper packages beside transformers on the same weights, and what their exports say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgellm
import edgellm_export
from comparison import relative
from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.package.report import read_report
from speech_checkpoints import START, VOCABULARY, features_of, sound

Load = Callable[..., edgellm.SpeechModel]
# Of logits, root mean square over root mean square. Weights are random: real ones are easier.
PRECISIONS = {"fp32": 2e-6, "fp16": 2e-3, "int8": 0.1, "int4": 0.9}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_logits(precision: str, load: Load, reference: Callable[..., Any]) -> None:
    features, target = features_of(sound(1.0)), np.array([START, *range(40, 60)])
    with torch.no_grad():
        expected = reference()(input_features=features, decoder_input_ids=torch.tensor(target[None])).logits[0].numpy()
    found = load(precision=precision).logits(features[0].numpy(), target)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < PRECISIONS[precision]
    if precision == "fp32":
        assert relative(found, expected) < 2e-5


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_an_export_is_compared_with_the_original(
    precision: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    exported = edgellm_export.export(checkpoint("many"), tmp_path / "out", precision=precision, keep_failed=True)
    report = read_report(exported.path)
    assert report is not None
    assert report.passed
    layers = [(layer.part, layer.layer) for layer in report.layers]
    assert layers == [("encoder", 0), ("encoder", 1), ("encoder", 2), ("decoder", 0), ("decoder", 1)]
    assert (max(layer.error for layer in report.layers) < 1e-5) == (precision == "fp32")
    plan = exported.outcome
    assert plan is not None
    assert plan.size_bytes.actual == pytest.approx(plan.size_bytes.predicted, rel=0.05)


def changed(checkpoint: Path, out: Path, name: str, **values: Any) -> Path:
    shutil.copytree(checkpoint, out)
    content = json.loads((out / name).read_text()) | values
    (out / name).write_text(json.dumps(content))
    return out


@pytest.mark.parametrize(
    ("name", "values", "error", "message"),
    [
        ("preprocessor_config.json", {"feature_size": 128}, CheckpointError, "128 mel bins .* the model reads 80"),
        ("preprocessor_config.json", {"chunk_length": 30}, CheckpointError, "of 30 seconds, .* reads 80 of 1"),
        ("preprocessor_config.json", {"do_normalize": True}, UnsupportedModelError, "do_normalize is True"),
        ("preprocessor_config.json", {"hop_length": 0}, CheckpointError, "hop_length is 0, expected a whole number"),
        ("generation_config.json", {"alignment_heads": [[2, 0]]}, CheckpointError, "one of 2 layers and one of its 6"),
        ("generation_config.json", {"alignment_heads": [1, 2]}, CheckpointError, "alignment_heads is"),
        ("config.json", {"is_causal": False}, UnsupportedModelError, "is_causal"),
        ("config.json", {"num_mel_bins": 128}, CheckpointError, "mel bins"),
    ],
)
def test_what_would_be_other_features_is_refused(
    name: str, values: dict[str, Any], error: type[Exception], message: str, checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    source = changed(checkpoint("many"), tmp_path / "changed", name, **values)
    with pytest.raises(error, match=message):
        edgellm_export.export(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "text2text-generation"}, "a model of speech is for automatic-speech-recognition"),
        ({"kv_cache": "int8"}, "float key/value cache only"),
        ({"precision": "mixed", "max_size": 10**6}, "export as int8"),
        ({"attentions": True}, "leave out --attentions"),
    ],
)
def test_choices_that_speech_does_not_have(
    options: dict[str, Any], message: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(edgellm.EdgellmError, match=message):
        edgellm_export.export(checkpoint("many"), tmp_path / "out", **options)


def test_the_manifest_says_what_is_read(load: Load) -> None:
    manifest = load().manifest
    assert manifest.task == "automatic-speech-recognition"
    assert manifest.graphs["encoder"].inputs == ("input_features",)
    assert vars(manifest.model.audio) == {
        "sampling_rate": 16000, "n_fft": 400, "hop_length": 160, "mel_bins": 80, "frames": 100, "longest": 0,
    }  # fmt: skip
    assert (manifest.model.source_length, manifest.context_length, manifest.vocab_size) == (50, 64, VOCABULARY)
    assert type(manifest).from_dict(manifest.to_dict()) == manifest
