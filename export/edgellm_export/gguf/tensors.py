"""GGUF tensors read by rows, and views that undo what llama.cpp's conversion does to the layout."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
class InterleavedRows(TensorView):
    """Undoes the row permutation of llama's query and key projections.

    llama.cpp rotates neighbouring values, Hugging Face the two halves of a head, so its conversion stores row
    (half, j) of a head at (j, half): LlamaModel.permute in conversion/llama.py. `head_dim` counts rows per head.
    """

    head_dim: int

    def rows(self, start: int, stop: int) -> FloatArray:
        first, last = start // self.head_dim, -(-stop // self.head_dim)  # heads
        stored = self.tensor.rows(first * self.head_dim, last * self.head_dim)
        pairs = stored.reshape(last - first, self.head_dim // 2, 2, *self.shape[1:])
        heads = pairs.swapaxes(1, 2).reshape(-1, *self.shape[1:])
        return heads[start - first * self.head_dim : stop - first * self.head_dim]


@dataclass(frozen=True)
class Shifted(TensorView):
    """A tensor plus a constant: gemma's norms are stored as 1 + weight."""

    amount: float

    def rows(self, start: int, stop: int) -> FloatArray:
        return self.tensor.rows(start, stop) + np.float32(self.amount)
