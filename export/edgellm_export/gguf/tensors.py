"""GGUF tensors read by rows, and views that undo what llama.cpp's conversion does to the layout."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.types import FloatArray
from edgellm_export.checkpoint.tensors import TensorView


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file; rows are whole blocks, so a slice of rows is one contiguous read. `shape` is outermost
    first, `offset` in bytes from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type: int
    path: Path
    offset: int
    nbytes: int

    def rows(self, start: int, stop: int) -> FloatArray:
        if len(self.shape) == 1:
            return self._read(0, 1, (1, *self.shape))[0, start:stop]
        return self._read(start, stop, self.shape)

    def item(self, index: int) -> GgufTensor:
        """One of the matrices along the first axis."""
        nbytes = self.nbytes // self.shape[0]
        return replace(self, shape=self.shape[1:], offset=self.offset + index * nbytes, nbytes=nbytes)

    def _read(self, start: int, stop: int, shape: tuple[int, ...]) -> FloatArray:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        if start == stop:
            return np.empty((0, *shape[1:]), np.float32)
        row_bytes = self.nbytes // shape[0]
        count = (stop - start) * row_bytes
        raw = np.fromfile(self.path, np.uint8, count, offset=self.offset + start * row_bytes)
        if raw.size != count:
            raise CheckpointError(f"{self.path} became shorter while {self.name} was read; copy it again")
        blocks = raw.reshape(-1, self.nbytes // math.prod(shape[:-1]))
        with np.errstate(all="ignore"):  # infinite scales are the checks' business, not a warning's
            values: FloatArray = dequantize(blocks, GGMLQuantizationType(self.type))
        return values.reshape(stop - start, *shape[1:])


def check_types(tensors: Mapping[str, GgufTensor]) -> None:
    """Raises UnsupportedModelError for a quantization that cannot be turned into numbers."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    first = {tensor.type: tensor for tensor in reversed(list(tensors.values()))}
    for kind, tensor in first.items():
        quantization = GGMLQuantizationType(kind)
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[quantization][1]), np.uint8), quantization)
        except NotImplementedError as error:
            raise UnsupportedModelError(
                f"{tensor.path}: {tensor.name} has type {quantization.name}, which cannot be read; "
                "use a file with other types"
            ) from error


def type_names(tensors: Iterable[GgufTensor]) -> list[str]:
    from gguf import GGMLQuantizationType

    return sorted({GGMLQuantizationType(tensor.type).name for tensor in tensors})


@dataclass(frozen=True)
class Shifted(TensorView):
    """A tensor plus a constant: gemma's norms are stored as 1 + weight."""

    amount: float

    def rows(self, start: int, stop: int) -> FloatArray:
        return self.tensor.rows(start, stop) + np.float32(self.amount)


@dataclass(frozen=True)
class AsRow(TensorView):
    """A matrix of one row out of a vector, as which conversion stores it."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, *self.tensor.shape)

    def rows(self, start: int, stop: int) -> FloatArray:
        return self.tensor.rows(0, self.tensor.shape[0])[None][start:stop]


@dataclass(frozen=True)
class Depthwise(TensorView):
    """[channels, 1, taps] out of [channels, taps], as which conversion stores the taps of a convolution."""

    @property
    def shape(self) -> tuple[int, ...]:
        channels, taps = self.tensor.shape
        return (channels, 1, taps)

    def rows(self, start: int, stop: int) -> FloatArray:
        return self.tensor.rows(start, stop)[:, None]


@dataclass(frozen=True)
class Multiplied(TensorView):
    """A tensor times a constant."""

    factor: float

    def rows(self, start: int, stop: int) -> FloatArray:
        return self.tensor.rows(start, stop) * np.float32(self.factor)


@dataclass(frozen=True)
class RowsAfter(TensorView):
    """A table behind `count` rows of zeros: RoBERTa's positions that no token takes, which conversion cuts off."""

    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.tensor.shape[0] + self.count, *self.tensor.shape[1:])

    def rows(self, start: int, stop: int) -> FloatArray:
        zeros = np.zeros((max(min(stop, self.count) - start, 0), *self.shape[1:]), np.float32)
        read = self.tensor.rows(max(start - self.count, 0), max(stop - self.count, 0))
        return np.concatenate([zeros, read])


@dataclass(frozen=True)
class HeadsTogether(TensorView):
    """Rows in which the `queries` of a key/value head, of `size` rows each, stand before its keys and values, out of a
    tensor that has all queries, then all keys, then all values, as conversion leaves Falcon's and GPT-NeoX's."""

    queries: int
    size: int

    def rows(self, start: int, stop: int) -> FloatArray:
        first, last = start // self.size, -(-stop // self.size)  # heads, of whatever kind
        pieces = [self._piece(*divmod(i, self.queries + 2)) for i in range(first, last)]
        joined = np.concatenate(pieces) if pieces else np.empty((0, *self.shape[1:]), np.float32)
        return joined[start - first * self.size : stop - first * self.size]

    def _piece(self, group: int, index: int) -> FloatArray:
        groups = self.shape[0] // ((self.queries + 2) * self.size)
        place = group * self.queries + index if index < self.queries else groups * index + group
        return self.tensor.rows(place * self.size, (place + 1) * self.size)


@dataclass(frozen=True)
class Number:
    """A tensor without axes, out of metadata."""

    name: str
    value: float

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    def rows(self, start: int, stop: int) -> FloatArray:
        return np.full(stop - start, self.value, np.float32)
