"""The header of a GGUF file: metadata, also with types, and tensor directory, checked against the size of the file.

Layout (ggml's gguf.md): magic, version, counts, key-value pairs, tensor infos, padding, data. Every count and length
is compared with the bytes that are left of the file, and of the most that a header has, before anything of that size is
made, so a damaged file costs an error and no more.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.gguf.tensors import GgufTensor

VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_HEADER = 1 << 28  # bytes; the largest vocabularies with their merges take some 2^24
MAX_NAME = 256  # characters of a tensor's name; llama.cpp has 64
MAX_DIMS = 4
MAX_STRINGS = 1 << 22  # elements of a string array; the largest vocabularies have 2^18
SCALARS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "u1", 10: "<u8", 11: "<i8", 12: "<f8"}
BOOL, STRING, ARRAY = 7, 8, 9


@dataclass(frozen=True)
class GgufFile:
    """A file's header. `metadata` holds str, bool, int, float, list[str] or numpy arrays."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    def fact(self, key: str, default: Any = None) -> Any:
        """A value of the metadata that can be compared: arrays are lists."""
        value = self.metadata.get(key, default)
        return value.tolist() if isinstance(value, np.ndarray) else value


def read_gguf(path: Path) -> GgufFile:
    """Read a file's header. Raises CheckpointError for a damaged file, UnsupportedModelError for a type or version that
    is not known."""
    size = path.stat().st_size
    with path.open("rb") as file:
        cursor = Cursor(path, file, size)
        tensor_count, pair_count = _read_counts(cursor)
        metadata: dict[str, Any] = {}
        for _ in range(pair_count):
            key = cursor.string("a metadata key")
            if key in metadata:
                raise cursor.corrupt(f"the metadata key {key!r} occurs twice")
            metadata[key] = cursor.value(cursor.integer("<u4", key), key)
        entries = [_read_entry(cursor) for _ in range(tensor_count)]
        alignment = _alignment(cursor, metadata)
        data_start = -(-cursor.position // alignment) * alignment
    return GgufFile(path, metadata, _locate(cursor, entries, data_start, alignment))


def _read_counts(cursor: Cursor) -> tuple[int, int]:
    if cursor.read(4, "the magic") != b"GGUF":
        raise CheckpointError(f"{cursor.path} is not a GGUF file: it does not start with 'GGUF'")
    version = cursor.integer("<u4", "the version")
    if version not in VERSIONS:
        order = " in big-endian byte order" if version and not version & 0xFFFF else ""
        raise UnsupportedModelError(
            f"{cursor.path} has GGUF version {version}{order}, expected {' or '.join(map(str, VERSIONS))}; "
            "convert it again with a current llama.cpp"
        )
    tensor_count = cursor.integer("<u8", "the number of tensors")
    pair_count = cursor.integer("<u8", "the number of metadata pairs")
    if tensor_count * 24 + pair_count * 13 > cursor.left:  # the least that each can occupy
        raise cursor.corrupt(f"it promises {tensor_count} tensors and {pair_count} metadata pairs")
    return tensor_count, pair_count


def _read_entry(cursor: Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.string("a tensor name")
    if len(name) > MAX_NAME:
        raise cursor.corrupt(f"a tensor has a name of {len(name)} characters, more than {MAX_NAME}")
    dims = cursor.integer("<u4", name)
    if not 1 <= dims <= MAX_DIMS:
        raise cursor.corrupt(f"{name!r} has {dims} dimensions")
    shape = tuple(cursor.integer("<u8", name) for _ in range(dims))[::-1]
    return name, shape, cursor.integer("<u4", name), cursor.integer("<u8", name)


def _alignment(cursor: Cursor, metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise cursor.corrupt(f"general.alignment is {alignment!r}, expected a power of two")
    return alignment


def _locate(
    cursor: Cursor, entries: list[tuple[str, tuple[int, ...], int, int]], data_start: int, alignment: int
) -> dict[str, GgufTensor]:
    """Check that each tensor lies inside the file, aligned, beside the others."""
    tensors: dict[str, GgufTensor] = {}
    end = 0
    for name, shape, kind, offset in sorted(entries, key=lambda entry: entry[3]):
        nbytes = tensor_nbytes(cursor, name, shape, kind)
        if name in tensors:
            raise cursor.corrupt(f"the tensor {name!r} occurs twice")
        if offset % alignment or offset < end:
            raise cursor.corrupt(f"{name!r} at {offset} is misaligned or overlaps its neighbour")
        end = offset + nbytes
        if data_start + end > cursor.size:
            raise cursor.corrupt(f"{name!r} ends at byte {data_start + end}, the file has {cursor.size}")
        tensors[name] = GgufTensor(name, shape, kind, cursor.path, data_start + offset, nbytes)
    return tensors


def tensor_nbytes(cursor: Cursor, name: str, shape: tuple[int, ...], kind: int) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if kind not in set(GGML_QUANT_SIZES):
        raise UnsupportedModelError(f"{cursor.path}: {name} has the unknown quantization type {kind}; use another file")
    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    if 0 in shape or shape[-1] % block:
        raise cursor.corrupt(f"{name!r} has shape {list(shape)}, its type needs rows that are multiples of {block}")
    return int(math.prod(shape) // block * block_bytes)


class Cursor:
    """Reads forward and never past the end of the file, or of the most that a header has."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.size, self.position, self._file = path, size, 0, file

    @property
    def left(self) -> int:
        return min(self.size, MAX_HEADER) - self.position

    def read(self, count: int, what: str) -> bytes:
        if count > self.left:
            raise self.corrupt(f"it ends within {what!r}: {count} bytes expected, {self.left} left")
        data = self._file.read(count)
        if len(data) != count:
            raise self.corrupt(f"it became shorter while {what!r} was read")
        self.position += count
        return data

    def integer(self, dtype: str, what: str) -> int:
        return int.from_bytes(self.read(int(dtype[2]), what), "little")

    def string(self, what: str) -> str:
        data = self.read(self.integer("<u8", what), what)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.corrupt(f"{what!r} is not UTF-8 text ({error})") from error

    def value(self, kind: int, key: str) -> Any:
        if kind == STRING:
            return self.string(key)
        if kind == ARRAY:
            return self._array(self.integer("<u4", key), self.integer("<u8", key), key)
        item = self._numbers(kind, 1, key)[0].item()
        return bool(item) if kind == BOOL else item

    def _array(self, kind: int, count: int, key: str) -> Any:
        if kind != STRING:
            return self._numbers(kind, count, key)
        if count * 8 > self.left or count > MAX_STRINGS:
            raise self.corrupt(f"{key!r} promises {count} strings, {self.left} bytes are left")
        return self._strings(count, key)

    def _strings(self, count: int, key: str) -> list[str]:
        unpack, read, left = struct.Struct("<Q").unpack, self._file.read, self.left
        strings: list[str] = []
        for _ in range(count):
            head = read(8)
            length = unpack(head)[0] if len(head) == 8 else left + 1
            left -= 8 + length
            if left < 0:
                raise self.corrupt(f"it ends within the {len(strings)}th of the {count} strings of {key!r}")
            try:
                strings.append(read(length).decode("utf-8"))
            except UnicodeDecodeError as error:
                raise self.corrupt(f"{key!r} is not UTF-8 text ({error})") from error
        self.position += self.left - left
        return strings

    def _numbers(self, kind: int, count: int, key: str) -> np.ndarray[Any, Any]:
        if kind not in SCALARS:
            raise self.corrupt(f"{key!r} has the unknown value type {kind}")
        dtype = np.dtype(SCALARS[kind])
        return np.frombuffer(self.read(count * dtype.itemsize, key), dtype)

    def corrupt(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged or cut off: {what}; download or copy it again")
