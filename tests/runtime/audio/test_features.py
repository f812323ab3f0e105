"""Spectrograms and filters beside transformers'."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from edgellm.audio.features import log_mel, mel_filters
from edgellm.package.manifest import AudioFeatures

TORCH = {"tones": 2e-4}  # its spectra are in float32, whose rounding shows beside a loud tone


def audio(bins: int, seconds: int = 30) -> AudioFeatures:
    return AudioFeatures(16000, 400, 160, bins, 100 * seconds)


@pytest.mark.parametrize("bins", [80, 128])
def test_filters(bins: int) -> None:
    np.testing.assert_allclose(mel_filters(audio(bins)), WhisperFeatureExtractor(bins).mel_filters, atol=1e-12)


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("kind", ["noise", "tones", "silence", "quiet"])
@pytest.mark.parametrize("length", [16000, 16077, 48001])
def test_spectrograms(bins: int, kind: str, length: int) -> None:
    rng, time = np.random.default_rng(0), np.arange(length) / 16000
    samples = {
        "noise": 0.1 * rng.standard_normal(length),
        "tones": np.sin(2 * np.pi * 440 * time) + 0.01 * rng.standard_normal(length),
        "silence": np.zeros(length),
        "quiet": 1e-3 * rng.standard_normal(length) * (time < 1),
    }[kind].astype(np.float32)
    found, extractor = log_mel(samples, audio(bins)), WhisperFeatureExtractor(bins)
    torchs, own = extractor._torch_extract_fbank_features, extractor._np_extract_fbank_features
    for extract, tolerance in ((own, 1e-6), (torchs, TORCH.get(kind, 1e-5))):
        expected = extract(samples[None], "cpu")[0]
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
