"""SafeTensors files: a strict header reader and tensors that are read by rows.

The format: 8 bytes little-endian header length, a JSON object of name -> {dtype, shape, data_offsets}, then the data.
Slices are read into memory instead of mapped, because mapped pages count towards the resident size until they are
dropped, and exporting must stay within a few tensors.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError
from edgellm.types import Array, FloatArray
from edgellm_export.weights.values import (
    ITEM_BITS,
    MAX_ELEMENTS,
    are_sizes,
    as_floats,
    check_float,
    check_no_pointer,
    read_stored,
)

METADATA = "__metadata__"
MAX_HEADER = 100_000_000  # bytes; the limit of the reference implementation


@dataclass(frozen=True)
class SafetensorsTensor:
    """One tensor of a file. `offset` is in bytes from the start of the file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    path: Path
    offset: int

    def rows(self, start: int, stop: int) -> FloatArray:
        """[stop - start, *shape[1:]] float32. Raises TensorError for a type that is not a plain floating-point one."""
        check_float(self.path, self.name, self.dtype)
        return as_floats(self.stored(start, stop), self.dtype)

    def item(self, index: int) -> SafetensorsTensor:
        """One of the matrices along the first axis."""
        nbytes = math.prod(self.shape[1:]) * ITEM_BITS[self.dtype] // 8
        return replace(self, shape=self.shape[1:], offset=self.offset + index * nbytes)

    def stored(self, start: int, stop: int) -> Array:
        """[stop - start, *shape[1:]] of a type in STORED, as they are in the file."""
        width = math.prod(self.shape[1:])
        offset = self.offset + start * width * ITEM_BITS[self.dtype] // 8
        raw = read_stored(self.path, self.name, self.dtype, (stop - start) * width, offset)
        return raw.reshape(stop - start, *self.shape[1:])


def read_safetensors(path: Path) -> dict[str, SafetensorsTensor]:
    """The tensors of one file by name, after checking the whole header. Raises CheckpointError."""
    return read_with_format(path)[0]


def read_with_format(path: Path) -> tuple[dict[str, SafetensorsTensor], str | None]:
    """The tensors, and whose names and layouts the file says that it has: "pt", "tf", "flax", "mlx". Raises
    CheckpointError."""
    header, data_start = _read_header(path)
    metadata = header.pop(METADATA, None)
    made_by = metadata.get("format") if isinstance(metadata, dict) else None
    size = path.stat().st_size
    tensors = {name: _tensor(path, name, entry, data_start, size) for name, entry in header.items()}
    _check_overlaps(path, tensors)
    return tensors, made_by if isinstance(made_by, str) else None


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header's JSON object, and where the data begins."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(32)
        check_no_pointer(path, start)
        length = int.from_bytes(start[:8], "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise _corrupt(path, f"its header should have {length} bytes, the file has {size}")
        file.seek(8)
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _corrupt(path, "its header is not a JSON object")
    return header, 8 + length


@contextmanager
def hollow_directory(directory: Path, headers: Mapping[str, Mapping[str, Any]]) -> Iterator[Path]:
    """A directory that lasts as long as the context does. It has the files of `directory`, and those whose `headers`
    are given, with a hole in the place of their weights. Raises CheckpointError for a header that cannot be one."""
    with tempfile.TemporaryDirectory(prefix="edgellm-headers-") as made:
        copy = Path(shutil.copytree(directory.resolve(), Path(made) / "checkpoint", copy_function=os.symlink))
        for name, header in headers.items():
            try:
                _write_hollow(copy / name, header)
            except (OSError, TypeError, ValueError, IndexError) as error:
                raise CheckpointError(f"the header of {name} makes no sense ({error}); try again later") from error
        yield copy


def _write_hollow(path: Path, header: Mapping[str, Any]) -> None:
    text = json.dumps(header).encode()
    end = max((entry["data_offsets"][-1] for entry in header.values()), default=0)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def _tensor(path: Path, name: str, entry: Any, data_start: int, file_size: int) -> SafetensorsTensor:
    if not isinstance(entry, Mapping) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise _corrupt(path, f"the entry of {name!r} lacks dtype, shape or data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        raise _corrupt(path, f"{name!r} has unknown type {dtype!r}")
    if not are_sizes(shape) or (0 in shape and math.prod(filter(None, shape)) > MAX_ELEMENTS):
        raise _corrupt(path, f"{name!r} has shape {shape!r}")
    if not are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _corrupt(path, f"{name!r} has data_offsets {offsets!r}")
    start, stop = offsets
    expected = math.prod(shape) * ITEM_BITS[dtype] // 8
    if stop - start != expected:
        raise _corrupt(path, f"{name!r} has {stop - start} bytes, {dtype} {shape} needs {expected}")
    if data_start + stop > file_size:
        raise _corrupt(path, f"{name!r} ends at byte {data_start + stop}, the file has {file_size}")
    return SafetensorsTensor(name, tuple(shape), dtype, path, data_start + start)


def _check_overlaps(path: Path, tensors: Mapping[str, SafetensorsTensor]) -> None:
    end, last = 0, ""
    for tensor in sorted(tensors.values(), key=lambda t: t.offset):
        nbytes = math.prod(tensor.shape) * ITEM_BITS[tensor.dtype] // 8
        if not nbytes:
            continue
        if tensor.offset < end:
            raise _corrupt(path, f"{last!r} and {tensor.name!r} overlap")
        end, last = tensor.offset + nbytes, tensor.name


def _corrupt(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged or not a SafeTensors file: {what}; download or copy it again")
