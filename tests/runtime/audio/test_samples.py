"""Samples of arrays and files."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm.audio.samples import samples_of
from edgellm.errors import InputError, MissingDependencyError

WAVE = np.sin(np.arange(4000) / 10).astype(np.float32) / 2


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_files(ending: str, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    file = tmp_path / f"one.{ending}"
    soundfile.write(file, WAVE, 16000, subtype="PCM_24")
    for given in (file, str(file), io.BytesIO(file.read_bytes())):
        np.testing.assert_allclose(samples_of(given, 16000), WAVE, atol=1e-6)
    soundfile.write(file, np.stack([WAVE, 0 * WAVE], axis=1), 16000, subtype="PCM_24")
    np.testing.assert_allclose(samples_of(file, 16000), WAVE / 2, atol=1e-6)


def test_another_rate_is_resampled() -> None:
    pytest.importorskip("soxr")
    slow = samples_of({"array": WAVE, "sampling_rate": 16000}, 8000)
    assert slow.dtype == np.float32
    np.testing.assert_allclose(slow[100:-100], WAVE[::2][100:-100], atol=1e-3)
    assert samples_of(WAVE, 16000, 8000).shape == (8000,)
    np.testing.assert_array_equal(samples_of(WAVE.astype(np.float64), 16000, 16000), WAVE)


def test_without_the_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(MissingDependencyError, match=r"reading recordings needs soundfile .*edgellm\[audio\]"):
        samples_of(tmp_path / "one.wav", 16000)
    with pytest.raises(MissingDependencyError, match="resampling from 8000 to 16000 Hertz needs soxr"):
        samples_of(WAVE, 16000, 8000)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 100), np.float32), r"one channel; found float32 \[2, 100\]"),
        (np.zeros(100, np.int16), "floats from -1 to 1.*found int16"),
        (np.zeros(0, np.float32), "has no samples"),
        (np.array([np.nan]), "not numbers"),
        ({"array": WAVE}, 'has "array" and "sampling_rate"; found array'),
        ([[0.0], [0.0, 0.0]], "an array .samples. of numbers"),
        ({"array": WAVE, "sampling_rate": 0}, "sampling_rate is 0"),
    ],
)
def test_what_is_no_recording(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        samples_of(given, 16000)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    (tmp_path / "text.wav").write_text("no sound")
    for name in ("text.wav", "missing.wav"):
        with pytest.raises(InputError, match=f"{name}: cannot be read as sound"):
            samples_of(tmp_path / name, 16000)
