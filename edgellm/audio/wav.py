"""WAV files of plain samples, so that the commonest recordings need no library."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from edgellm.types import FloatArray

PCM, FLOATS, EXTENSIBLE = 1, 3, 0xFFFE  # format tags
BITS = {PCM: (8, 16, 24, 32), FLOATS: (32, 64)}
FORMAT_BYTES, EXTENDED_BYTES = 16, 26  # of a format chunk: as a rule, and with the tag that EXTENSIBLE stands for
OPEN_END = 0xFFFFFFFF  # as the size of samples: those who wrote them did not know it


@dataclass(frozen=True)
class WavFile:
    """`content`: its samples as they are in the file. `rate`: in Hertz."""

    channels: int
    rate: int
    kind: int
    bits: int
    content: bytes

    @property
    def frames(self) -> int:
        return len(self.content) // (self.channels * self.bits // 8)

    def samples(self) -> FloatArray:
        """[frames, channels] float32 from -1 to 1."""
        content = self.content[: self.frames * self.channels * self.bits // 8]
        return _floats(content, self.kind, self.bits).reshape(-1, self.channels)


def read_wav(file: BinaryIO) -> WavFile | None:
    """None for what is no WAV file, or has samples that are compressed; the file is at its beginning then. Raises
    ValueError for one that is damaged."""
    found = _read(file)
    if found is None:
        file.seek(0)
    return found


def _read(file: BinaryIO) -> WavFile | None:
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    form = b""
    while len(head := file.read(8)) == 8:
        name, size = head[:4], int.from_bytes(head[4:], "little")
        if name == b"data":
            return _described(form, file.read(-1 if size == OPEN_END else size))
        if name == b"fmt ":
            form = file.read(min(size, EXTENDED_BYTES))
            size -= len(form)
        file.seek(size + size % 2, os.SEEK_CUR)
    raise ValueError("it ends before its samples")


def _described(form: bytes, content: bytes) -> WavFile | None:
    """By what the format chunk says."""
    if len(form) < FORMAT_BYTES:
        raise ValueError("it does not say how its samples are written")
    kind, channels = int.from_bytes(form[:2], "little"), int.from_bytes(form[2:4], "little")
    rate, bits = int.from_bytes(form[4:8], "little"), int.from_bytes(form[14:16], "little")
    if kind == EXTENSIBLE and len(form) == EXTENDED_BYTES:
        kind = int.from_bytes(form[24:26], "little")
    if bits not in BITS.get(kind, ()):
        return None
    if not channels or not rate:
        raise ValueError(f"it has {channels} channels at {rate} Hertz")
    return WavFile(channels, rate, kind, bits, content)


def _floats(content: bytes, kind: int, bits: int) -> FloatArray:
    if kind == FLOATS:
        return np.frombuffer(content, f"<f{bits // 8}").astype(np.float32)
    if bits == 8:
        return (np.frombuffer(content, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    if bits == 24:
        wide = np.zeros((len(content) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        content, bits = wide.tobytes(), 32
    return np.frombuffer(content, f"<i{bits // 8}").astype(np.float32) / np.float32(1 << (bits - 1))
