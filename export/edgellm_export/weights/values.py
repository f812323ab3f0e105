"""Numbers in files: their types, and reading a run of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from edgellm.errors import CheckpointError, TensorError
from edgellm.types import Array, FloatArray

ITEM_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
FLOATS: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
STORED: dict[str, np.dtype[Any]] = {  # types that numpy has not, as whole numbers of their bits
    **FLOATS,
    **dict.fromkeys(("BOOL", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), np.dtype(np.uint8)),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
}
MAX_ELEMENTS = 1 << 48  # of an empty tensor's shape, zeros aside: numpy refuses what it could not address
MAX_RANK = 64  # axes of a tensor, as torch and numpy have them
LFS_POINTER = b"version https://git-lfs"


def is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 62


def are_sizes(value: object) -> bool:
    """Whether a list or tuple may be a shape, or strides."""
    return isinstance(value, list | tuple) and len(value) <= MAX_RANK and all(map(is_size, value))


def read_stored(path: Path, name: str, dtype: str, count: int, offset: int) -> Array:
    """`count` numbers of the tensor `name`, from byte `offset` of the file on, of a type in STORED. Raises TensorError
    for another type, and CheckpointError where the file has become shorter."""
    if dtype not in STORED:
        raise TensorError(f"{name} in {path.name} has type {dtype}, expected one of {', '.join(STORED)}")
    raw = np.fromfile(path, STORED[dtype], count, offset=offset)
    if raw.size != count:
        raise CheckpointError(f"{path} became shorter while {name} was read; copy the checkpoint again")
    return raw


def check_float(path: Path, name: str, dtype: str) -> None:
    """Raises TensorError for a type that is not a plain floating-point one."""
    if dtype not in FLOATS:
        raise TensorError(
            f"{name} in {path.name} has type {dtype}, expected one of {', '.join(FLOATS)}; config.json has no "
            "quantization_config that says what such numbers stand for: export the original checkpoint"
        )


def as_floats(stored: Array, dtype: str) -> FloatArray:
    """Numbers of a type in FLOATS as float32."""
    if dtype == "BF16":  # the upper half of a float32
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False)


def check_no_pointer(path: Path, start: bytes) -> None:
    """Refuse what git leaves in a file's place where git-lfs is not installed. `start`: the file's first bytes."""
    if start.startswith(LFS_POINTER):
        raise CheckpointError(
            f"{path} is a git-lfs pointer, not the file itself; run `git lfs install` and `git lfs pull` in its "
            "directory, or download the file"
        )
