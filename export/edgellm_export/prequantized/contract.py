"""What the readers of all methods share: the options, the stored tensors and which of them were used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgellm.errors import CheckpointError, TensorError, UnsupportedModelError
from edgellm.types import Array, FloatArray
from edgellm_export.checkpoint.config import short
from edgellm_export.checkpoint.tensors import LazyTensor

ORIGINAL = "export the original checkpoint that it was made from"
FLOAT_TYPES = ("F16", "BF16", "F32", "F64")
MAX_COLUMNS = 1 << 24  # of a matrix; an index of columns beyond would fill the memory


class StoredTensor(LazyTensor, Protocol):
    """A tensor of a file. `dtype`: its type as SafeTensors calls it."""

    @property
    def dtype(self) -> str: ...

    def stored(self, start: int, stop: int) -> Array:
        """[stop - start, *shape[1:]] of its own type; without one in numpy, whole numbers of its bits."""


@dataclass(frozen=True)
class Options:
    """config.json's quantization_config."""

    method: str
    data: Mapping[str, Any]

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.data.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int:
            raise self.wrong(key, value, "a whole number")
        return value

    def one_of(self, key: str, default: Any, known: Sequence[Any]) -> Any:
        """A value that edgellm reads; text in lower case."""
        value = self.data.get(key)
        value = default if value is None else value.lower() if isinstance(value, str) else value
        if not any(type(value) is type(each) and value == each for each in known):
            raise self.refused(key, value, " or ".join(map(repr, known)))
        return value

    def must_lack(self, *keys: str) -> None:
        """Refuse what changes the model in a way that edgellm does not build."""
        for key in keys:
            if self.data.get(key):
                raise self.refused(key, self.data[key], "nothing there")

    def refused(self, key: str, value: object, expected: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"config.json: quantization_config.{key} is {short(value)}; edgellm reads "
            f"{self.method} checkpoints with {expected}; {ORIGINAL}"
        )

    def wrong(self, key: str, value: object, expected: str) -> CheckpointError:
        return CheckpointError(
            f"config.json: quantization_config.{key} is {short(value)}, expected {expected}; is it this "
            "checkpoint's config?"
        )


class Stored:
    """The tensors of a checkpoint; those that are taken do not stay."""

    def __init__(self, tensors: Mapping[str, StoredTensor]) -> None:
        self._tensors = tensors
        self._taken: set[str] = set()

    def ending(self, *ends: str) -> list[str]:
        """The names that end so, without their end."""
        return [name.removesuffix(end) for name in self._tensors for end in ends if name.endswith(end)]

    def matrices(self) -> list[str]:
        """The names of the tensors of two dimensions."""
        return [name for name, tensor in self._tensors.items() if len(tensor.shape) == 2]

    def take(self, name: str, types: Sequence[str], shape: tuple[int, ...] | None = None) -> StoredTensor:
        """The tensor `name`, of one of `types`. Raises TensorError."""
        found = self.optional(name, types, shape)
        if found is None:
            raise TensorError(f"{name} is missing beside the other parts of its matrix; download the checkpoint again")
        return found

    def optional(self, name: str, types: Sequence[str], shape: tuple[int, ...] | None = None) -> StoredTensor | None:
        found = self._tensors.get(name)
        if found is None:
            return None
        self._taken.add(name)
        if found.dtype not in types:
            raise TensorError(f"{name} has type {found.dtype}, expected {' or '.join(types)}; {ORIGINAL}")
        if shape is not None and found.shape != shape:
            raise misshapen(found, f"{list(shape)}")
        return found

    def matrix(self, name: str, types: Sequence[str]) -> StoredTensor:
        """The tensor `name`, of two dimensions. Raises TensorError."""
        found = self.take(name, types)
        if len(found.shape) != 2 or 0 in found.shape or max(found.shape) > MAX_COLUMNS:
            raise misshapen(found, "a matrix")
        return found

    def drop(self, *ends: str) -> None:
        """Tensors that end so say nothing about weights."""
        self._taken.update(name for name in self._tensors if name.endswith(ends))

    def rest(self) -> dict[str, LazyTensor]:
        return {name: tensor for name, tensor in self._tensors.items() if name not in self._taken}


def misshapen(tensor: StoredTensor, expected: str) -> TensorError:
    return TensorError(
        f"{tensor.name} has shape {list(tensor.shape)}, expected {expected}; "
        "check that config.json and the weights belong together"
    )


def whole(tensor: StoredTensor) -> Array:
    """All of a tensor as it is stored; with no dimension, as one with one."""
    return tensor.stored(0, tensor.shape[0] if tensor.shape else 1)


@dataclass(frozen=True)
class Scales:
    """What the weights of a matrix are multiplied by: one number for `height` rows and `width` columns. `tensor`:
    [rows / height, columns / width], rounded up; it may lack dimensions of 1. Bytes are exponents of two."""

    tensor: StoredTensor
    height: int
    width: int

    def rows(self, start: int, stop: int) -> FloatArray:
        """[stop - start, columns / width] float32, for some rows of the matrix."""
        first, last = start // self.height, -(-stop // self.height)
        index = np.arange(start, stop) // self.height - first
        found: FloatArray = self._read(first, last)[index]
        return found

    def _read(self, first: int, last: int) -> FloatArray:
        if not self.tensor.shape:
            first, last = 0, 1
        if self.tensor.dtype in FLOAT_TYPES:
            found = self.tensor.rows(first, last)
        else:
            found = DECODED[self.tensor.dtype][self.tensor.stored(first, last)]
        return np.asarray(found.reshape(last - first, -1), np.float32)


def float_values(exponent_bits: int, mantissa_bits: int) -> FloatArray:
    """What each code of a small floating-point type without infinities stands for; NaN is not among them."""
    codes = np.arange(1 << (1 + exponent_bits + mantissa_bits))
    mantissa, exponent = codes % (1 << mantissa_bits), codes >> mantissa_bits & (1 << exponent_bits) - 1
    bias = (1 << (exponent_bits - 1)) - 1
    ones = np.where(exponent > 0, 1.0, 0.0) + mantissa / (1 << mantissa_bits)
    size = np.ldexp(ones, np.maximum(exponent, 1) - bias)
    return np.asarray(np.where(codes >> (exponent_bits + mantissa_bits), -size, size), np.float32)


def _e4m3() -> FloatArray:
    values = float_values(4, 3)
    values[[0x7F, 0xFF]] = np.nan
    return values


def _e8m0() -> FloatArray:
    with np.errstate(over="ignore"):
        return np.asarray(np.ldexp(np.float32(1), np.arange(256) - 127), np.float32)


FP4 = float_values(2, 1)
E8M0 = _e8m0()  # the last is infinite, as where transformers reads bytes
DECODED: Mapping[str, FloatArray] = {  # by what is stored; a negative number is an index from the end
    "F8_E4M3": _e4m3(),
    "F8_E8M0": np.append(E8M0[:-1], np.float32("nan")),
    "U8": E8M0,
    "I8": np.append(np.arange(128, dtype=np.float32), np.arange(-128, 0, dtype=np.float32)),
}
