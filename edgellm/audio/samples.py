"""Samples of a recording at the rate that a model reads: of an array, of a WAV file, or of another one by soundfile."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from os import PathLike, fspath
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from edgellm.audio.wav import read_wav
from edgellm.errors import EdgellmError, InputError, MissingDependencyError
from edgellm.types import Array, FloatArray

Recording = Any  # a path, an open file, an array [samples], or a mapping of "array" (or "raw") and "sampling_rate"
BLOCK = 1 << 20  # samples of all channels, of a compressed file at a time


def samples_of(
    recording: Recording, rate: int, sampling_rate: int | None = None, *, longest: float | None = None
) -> FloatArray:
    """[samples] float32 at `rate` Hertz. `sampling_rate`: of an array; None: the rate. `longest`: seconds that a file
    may have: a small one may hold hours. Raises InputError, or MissingDependencyError where reading a file or another
    rate needs a library that is not there."""
    if isinstance(recording, Mapping):
        array = recording.get("raw", recording.get("array"))
        if array is None or "sampling_rate" not in recording:
            found = ", ".join(map(str, recording)) or "nothing"
            raise InputError(f'a recording as a dict has "array" and "sampling_rate"; found {found}')
        return samples_of(array, rate, recording["sampling_rate"])
    if isinstance(recording, str | PathLike) or hasattr(recording, "read"):
        array, sampling_rate = _read(recording, longest)
        return _resampled(_checked(array), sampling_rate, rate)
    if sampling_rate is not None and (type(sampling_rate) is not int or sampling_rate < 1):
        raise InputError(f"sampling_rate is {sampling_rate!r}, expected a whole number of Hertz")
    return _resampled(_checked(recording), sampling_rate or rate, rate)


def _checked(recording: Any) -> FloatArray:
    """One channel. Raises InputError."""
    try:
        array: Array = np.asarray(recording)
    except ValueError as error:
        raise InputError(f"a recording is an array [samples] of numbers ({error})") from None
    if array.dtype.kind != "f" or array.ndim != 1:
        raise InputError(
            f"a recording is an array [samples] of floats from -1 to 1, one channel; found {array.dtype} "
            f"{list(array.shape)}; divide integers by their largest, and take the mean of channels"
        )
    if not len(array):
        raise InputError("the recording has no samples")
    if not np.isfinite(array).all():
        raise InputError("the recording has samples that are not numbers (NaN or infinity)")
    return np.asarray(array, np.float32)


def _read(file: str | PathLike[str] | BinaryIO, longest: float | None) -> tuple[FloatArray, int]:
    """The mean of a file's channels, and its rate in Hertz."""
    name = fspath(file) if isinstance(file, str | PathLike) else getattr(file, "name", "the recording")
    try:
        with open(file, "rb") if isinstance(file, str | PathLike) else nullcontext(file) as opened:
            found = read_wav(opened)
            if found is None:
                return _decoded(opened, longest)
            _check_length(found.frames, found.rate, longest)
            return found.samples().mean(axis=1), found.rate
    except EdgellmError:
        raise
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # soundfile's own errors are RuntimeErrors
        raise InputError(f"{name}: cannot be read as sound ({error}); give a WAV or FLAC file") from error


def _decoded(file: BinaryIO, longest: float | None) -> tuple[FloatArray, int]:
    """The same by soundfile, in pieces."""
    soundfile = _library("soundfile", "reading recordings other than plain WAV files")
    with soundfile.SoundFile(file) as opened:
        rate, frames, means = int(opened.samplerate), 0, [np.zeros(0, np.float32)]
        for block in opened.blocks(max(1, BLOCK // opened.channels), dtype="float32", always_2d=True):
            frames += len(block)
            _check_length(frames, rate, longest)
            means.append(block.mean(axis=1))
    return np.concatenate(means), rate


def _check_length(frames: int, rate: int, longest: float | None) -> None:
    if longest is not None and frames > longest * rate:
        raise InputError(f"the recording is longer than {longest:g} seconds; give it in pieces")


def _resampled(samples: FloatArray, found: int, wanted: int) -> FloatArray:
    if found == wanted:
        return samples
    soxr = _library("soxr", f"resampling from {found} to {wanted} Hertz")
    return np.asarray(soxr.resample(samples, found, wanted), np.float32)


def _library(name: str, why: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise MissingDependencyError(f"{why} needs {name} ({error}); run `pip install 'edgellm[audio]'`") from error
