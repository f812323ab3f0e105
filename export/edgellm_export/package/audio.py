"""What a checkpoint's preprocessor_config.json makes of speech, as transformers' WhisperFeatureExtractor and
Wav2Vec2FeatureExtractor read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.package.manifest import AudioFeatures

PREPROCESSOR = "preprocessor_config.json"
USUAL: Mapping[str, Any] = {"sampling_rate": 16000, "n_fft": 400, "hop_length": 160}
# Other values of these would make other features.
ONLY: Mapping[str, Any] = {
    "feature_extractor_type": "WhisperFeatureExtractor", "dither": 0, "do_normalize": False, "padding_value": 0,
    "padding_side": "right",
}  # fmt: skip

RAW_ONLY: Mapping[str, Any] = {
    "feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": False, "feature_size": 1,
    "sampling_rate": USUAL["sampling_rate"],
}  # fmt: skip


def raw_audio(files: Mapping[str, bytes], shortest: int, seconds: int) -> AudioFeatures:
    """Of a model that reads samples themselves, from so many up to so many seconds. Raises UnsupportedModelError where
    the file changes them."""
    config: dict[str, Any] = json.loads(files.get(PREPROCESSOR, b"{}"))
    for name, value in RAW_ONLY.items():
        if config.get(name) not in (None, value):
            raise UnsupportedModelError(f"{PREPROCESSOR}: {name} is {config[name]!r}; edgellm has only {value!r}")
    rate = USUAL["sampling_rate"]
    return AudioFeatures(rate, 1, 1, mel_bins=1, frames=shortest, longest=seconds * rate)


def audio_features(files: Mapping[str, bytes], mel_bins: int, frames: int) -> AudioFeatures:
    """`mel_bins`, `frames`: what the model reads. Raises CheckpointError where the file makes something else, and
    UnsupportedModelError where it makes that in another way."""
    config: dict[str, Any] = json.loads(files.get(PREPROCESSOR, b"{}"))
    for name, value in ONLY.items():
        if config.get(name) not in (None, value):
            raise UnsupportedModelError(f"{PREPROCESSOR}: {name} is {config[name]!r}; edgellm has only {value!r}")
    sizes = {name: config.get(name, value) for name, value in USUAL.items()}
    wrong = [f"{name} is {size!r}" for name, size in sizes.items() if type(size) is not int or size < 1]
    if wrong:
        raise CheckpointError(f"{PREPROCESSOR}: {', '.join(wrong)}, expected a whole number from 1")
    found = AudioFeatures(**sizes, mel_bins=mel_bins, frames=frames)
    bins, seconds = (
        config.get("feature_size", mel_bins),
        config.get("chunk_length", found.samples / found.sampling_rate),
    )
    if bins != mel_bins or seconds * found.sampling_rate != found.samples:
        raise CheckpointError(
            f"{PREPROCESSOR} makes {bins} mel bins of {seconds} seconds, and the model reads {mel_bins} of "
            f"{found.samples / found.sampling_rate:g}; is it the one of this checkpoint?"
        )
    return found
