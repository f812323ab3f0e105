"""Log-mel spectrograms, as transformers' WhisperFeatureExtractor makes them."""

from __future__ import annotations

import math

import numpy as np

from edgellm.package.manifest import AudioFeatures
from edgellm.types import DoubleArray, FloatArray

HIGHEST = 8000.0  # Hertz, of the mel scale, whatever the sampling rate
FLOOR, DYNAMIC_RANGE = 1e-10, 8.0  # of a power, and of its logarithm below the loudest
CHUNK = 1024  # frames at a time: their spectra are in memory

# Slaney's mel scale: linear up to 1,000 Hertz, which is 15 mel, then a logarithm.
LINEAR_STEP, CORNER = 200.0 / 3, 15.0
LOG_STEP = math.log(6.4) / 27.0


def log_mel(samples: FloatArray, audio: AudioFeatures) -> FloatArray:
    """The spectrogram [mel_bins, len(samples) // hop_length] of samples. Its floor is by the loudest of all frames, so
    that a spectrogram of a part is not a part of it."""
    edge = audio.n_fft // 2
    padded = np.pad(samples, edge, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, audio.n_fft)[:: audio.hop_length]
    frames = frames[: len(samples) // audio.hop_length]
    window, filters = hann(audio.n_fft), mel_filters(audio)
    powers = np.empty((len(frames), audio.mel_bins))
    for start in range(0, len(frames), CHUNK):
        spectrum = np.fft.rfft(frames[start : start + CHUNK] * window)
        powers[start : start + CHUNK] = (spectrum.real**2 + spectrum.imag**2) @ filters
    logs = np.log10(np.maximum(powers, FLOOR, out=powers), out=powers)
    np.maximum(logs, logs.max(initial=-np.inf) - DYNAMIC_RANGE, out=logs)
    return np.ascontiguousarray((logs.T + 4.0) / 4.0, np.float32)


def hann(length: int) -> DoubleArray:
    """Hann's window, periodic: the next one's first value would come behind the last."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def mel_filters(audio: AudioFeatures) -> DoubleArray:
    """[n_fft // 2 + 1, mel_bins]: triangles of the same area, evenly spread over Slaney's mel scale."""
    hertz = np.linspace(0, audio.sampling_rate / 2, audio.n_fft // 2 + 1)
    corners = _hertz(np.linspace(0, _mel(HIGHEST), audio.mel_bins + 2))
    slopes = corners - hertz[:, None]
    widths = np.diff(corners)
    triangles = np.maximum(0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]))
    return np.asarray(triangles * (2.0 / (corners[2:] - corners[:-2])))


def _mel(hertz: float) -> float:
    return hertz / LINEAR_STEP if hertz < CORNER * LINEAR_STEP else CORNER + math.log(hertz / 1000.0) / LOG_STEP


def _hertz(mel: DoubleArray) -> DoubleArray:
    return np.where(mel < CORNER, mel * LINEAR_STEP, 1000.0 * np.exp(LOG_STEP * (mel - CORNER)))
