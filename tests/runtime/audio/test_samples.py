"""Samples of arrays and files."""

from __future__ import annotations

import io
import struct
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
    with pytest.raises(
        MissingDependencyError,
        match=r"reading recordings other than plain WAV files needs soundfile .*edgellm\[audio\]",
    ):
        samples_of(io.BytesIO(b"fLaC"), 16000)
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


@pytest.mark.parametrize(
    ("subtype", "form"),
    [*((kind, "WAV") for kind in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")), ("PCM_24", "WAVEX")],
)
def test_plain_wav_files_need_no_library(subtype: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile = pytest.importorskip("soundfile")
    file = io.BytesIO()
    soundfile.write(file, np.stack([WAVE, WAVE[::-1]], axis=1), 16000, subtype=subtype, format=form)
    expected = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0].mean(axis=1)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    np.testing.assert_array_equal(samples_of(io.BytesIO(file.getvalue()), 16000), expected)


def test_wav_files_that_are_compressed_are_read_by_soundfile() -> None:
    soundfile = pytest.importorskip("soundfile")
    file = io.BytesIO()
    soundfile.write(file, WAVE, 16000, subtype="ULAW", format="WAV")
    expected = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0]
    np.testing.assert_array_equal(samples_of(io.BytesIO(file.getvalue()), 16000), expected)


def wav(*, size: int | None = None, samples: bytes = bytes(8), **said: int) -> bytes:
    """A file of 16 bits; `said`: of its format. `size`: what it says of its samples."""
    given = {"tag": 1, "channels": 1, "rate": 16000, "bits": 16} | said
    form = struct.pack("<HHIIHH", given["tag"], given["channels"], given["rate"], 0, 0, given["bits"])
    chunks = b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"fmt " + struct.pack("<I", len(form)) + form
    data = b"data" + struct.pack("<I", len(samples) if size is None else size) + samples
    return b"RIFF" + bytes(4) + b"WAVE" + chunks + data


def test_what_wav_files_leave_out() -> None:
    samples = np.array([1 << 14, -(1 << 14)], "<i2").tobytes()
    for size in (4, 0xFFFFFFFF, 100):
        found = samples_of(io.BytesIO(wav(samples=samples + b"\x01", size=size)), 16000)
        np.testing.assert_array_equal(found, np.array([0.5, -0.5], np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wav(channels=0), "it has 0 channels at 16000 Hertz"),
        (wav(rate=0), "it has 1 channels at 0 Hertz"),
        (wav()[:-16], "it ends before its samples"),
        (b"RIFF....WAVEdata" + bytes(8), "does not say how its samples are written"),
        (wav(samples=b""), "has no samples"),
        (wav(tag=3, bits=32, samples=struct.pack("<2f", 0, np.nan)), "not numbers"),
    ],
)
def test_damaged_wav_files(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        samples_of(io.BytesIO(content), 16000)


def test_a_file_that_is_too_long() -> None:
    soundfile = pytest.importorskip("soundfile")
    file = io.BytesIO()
    soundfile.write(file, np.zeros(16000 * 600, np.float32), 16000, format="FLAC")
    assert len(file.getvalue()) < 70_000, "small files may hold hours"
    for content in (file.getvalue(), wav(rate=1, samples=bytes(1200))):
        with pytest.raises(InputError, match=r"longer than 599\.5 seconds"):
            samples_of(io.BytesIO(content), 16000, longest=599.5)
    assert len(samples_of(io.BytesIO(file.getvalue()), 16000, longest=600)) == 16000 * 600
