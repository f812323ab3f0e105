"""BitNet's ternary matrices: -1, 0 and 1 times one number. Four to a byte, of rows a quarter of the matrix apart; or in
full precision, to be rounded whenever they are read ("online", as in training).

Read as transformers does (`integrations/bitnet.py`), whose layers also round their inputs, to int8 per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgellm.types import ByteArray, FloatArray
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.prequantized.contract import FLOAT_TYPES, Options, Stored, StoredTensor
from edgellm_export.prequantized.levels import IntegerTensor

BITS, ZERO = 2, 1  # levels 0, 1 and 2
PER_BYTE = 4
SMALLEST = 1e-5  # mean size of weights
READ_ROWS = 1024  # at a time
KEPT = ("lm_head", "embed_tokens")  # parts of the names of matrices that are as they are


@dataclass(frozen=True)
class TernaryTensor(IntegerTensor):
    """`packed`: [outputs / 4, inputs]."""

    packed: StoredTensor
    scale: float

    def codes(self, start: int, stop: int) -> tuple[ByteArray, FloatArray, FloatArray]:
        quarter = self.packed.shape[0]
        pieces = [np.empty((0, self.shape[1]), np.uint8)]
        for part in range(PER_BYTE):
            low, high = (min(max(at - part * quarter, 0), quarter) for at in (start, stop))
            if low < high:
                pieces.append(self.packed.stored(low, high) >> np.uint8(BITS * part) & np.uint8(3))
        return _with_scale(np.concatenate(pieces), self.scale)


@dataclass(frozen=True)
class RoundedTensor(IntegerTensor):
    """`weights`: [outputs, inputs] of a float type."""

    weights: StoredTensor

    @cached_property
    def scale(self) -> float:
        """The mean size of all weights, which needs a pass over them."""
        rows, columns = self.shape
        starts = range(0, rows, READ_ROWS)
        total = sum(
            float(np.abs(self.weights.rows(at, min(at + READ_ROWS, rows))).sum(dtype=np.float64)) for at in starts
        )
        return max(total / (rows * columns), SMALLEST)

    def codes(self, start: int, stop: int) -> tuple[ByteArray, FloatArray, FloatArray]:
        rounded = np.clip(np.rint(self.weights.rows(start, stop) * np.float32(1 / self.scale)), -1, 1)
        return _with_scale((rounded + ZERO).astype(np.uint8), self.scale)


def read(options: Options, stored: Stored) -> dict[str, LazyTensor]:
    options.must_lack("use_rms_norm")
    kept = options.data.get("modules_to_not_convert") or ()
    if not isinstance(kept, list | tuple) or not all(isinstance(name, str) for name in kept):
        raise options.wrong("modules_to_not_convert", kept, "a list of names")
    linear_class = options.one_of("linear_class", "bitlinear", ("bitlinear", "autobitlinear"))
    if options.one_of("quantization_mode", "offline", ("offline", "online")) == "online":
        if linear_class == "bitlinear":
            raise options.refused("quantization_mode", "online", "'offline' for the linear_class 'bitlinear'")
        return _rounded(stored, (*KEPT, *kept))
    found = [_unpacked(stored, name, divides=linear_class == "bitlinear") for name in stored.ending(".weight_scale")]
    return {matrix.name: matrix for matrix in found}


def _unpacked(stored: Stored, name: str, *, divides: bool) -> TernaryTensor:
    """`divides`: the number beside a matrix is what it is divided by."""
    packed = stored.matrix(f"{name}.weight", ("U8",))
    scale = stored.take(f"{name}.weight_scale", FLOAT_TYPES, (1,)).rows(0, 1).item()
    shape = (packed.shape[0] * PER_BYTE, packed.shape[1])
    return TernaryTensor(f"{name}.weight", shape, BITS, shape[1], None, packed, 1 / scale if divides else scale)


def _rounded(stored: Stored, kept: tuple[str, ...]) -> dict[str, LazyTensor]:
    names = [name for name in stored.matrices() if name.endswith(".weight") and not any(part in name for part in kept)]
    found = [stored.matrix(name, FLOAT_TYPES) for name in names]
    return {each.name: RoundedTensor(each.name, each.shape, BITS, each.shape[1], None, each) for each in found}


def _with_scale(levels: ByteArray, scale: float) -> tuple[ByteArray, FloatArray, FloatArray]:
    one = (len(levels), 1)
    return levels, np.full(one, scale, np.float32), np.full(one, ZERO, np.float32)
