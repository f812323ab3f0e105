"""bitsandbytes: NF4 and FP4, whose levels are indices of a table, and LLM.int8() with a scale per output.

Read as bitsandbytes does (`functional.py`: QuantState, dequantize_4bit, int8_vectorwise_dequant).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgellm.errors import CheckpointError, TensorError
from edgellm.types import Array, ByteArray, FloatArray
from edgellm_export.checkpoint.config import is_number, short
from edgellm_export.checkpoint.integers import QuantizedTensor
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.prequantized.contract import (
    MAX_COLUMNS,
    ORIGINAL,
    Options,
    Stored,
    StoredTensor,
    misshapen,
    whole,
)
from edgellm_export.prequantized.levels import IntegerTensor

STATES = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")
SHARE = np.float32(7.874015718698502e-3)  # of the largest size of a row: 1 / 127
LONGEST_STATE = 1 << 16  # bytes
TYPES = ("U8", "I8", "F16", "BF16", "F32", "F64")  # that the bytes of a matrix may be stored as


@dataclass(frozen=True)
class Blocks:
    """The largest sizes of the blocks of `size` weights, one behind the other. Where they are quantized themselves,
    `sizes` are indices of `table`, times one of `outer` for each `outer_size` of them, and `offset`."""

    size: int
    sizes: StoredTensor
    table: FloatArray | None = None
    outer: FloatArray | None = None
    outer_size: int = 1
    offset: float = 0.0

    def of(self, first: int, last: int) -> FloatArray:
        """[last - first], of some blocks."""
        if self.table is None or self.outer is None:
            return self.sizes.rows(first, last)
        outer = self.outer[np.arange(first, last) // self.outer_size]
        return self.table[self.sizes.stored(first, last)] * outer + np.float32(self.offset)


@dataclass(frozen=True)
class Table4Tensor(QuantizedTensor):
    """`halves`: bytes, whose upper half is the first of two indices of `table`, row behind row. `blocks` go on from a
    row to the next."""

    halves: StoredTensor
    table: FloatArray
    blocks: Blocks

    def rows(self, start: int, stop: int) -> FloatArray:
        first, last = start * self.shape[1], stop * self.shape[1]
        packed = _bytes(self.halves, first // 2, -(-last // 2))
        index = np.stack([packed >> 4, packed & 15], axis=-1).reshape(-1)[first % 2 :][: last - first]
        low, high = first // self.blocks.size, -(-last // self.blocks.size)
        sizes = self.blocks.of(low, high)[np.arange(first, last) // self.blocks.size - low]
        return (self.table[index] * sizes).reshape(stop - start, self.shape[1])


def _bytes(tensor: StoredTensor, first: int, last: int) -> ByteArray:
    """Some bytes of a tensor of any type, of which all rows have one number."""
    width = _width(tensor)
    raw = tensor.stored(first // width, -(-last // width)).reshape(-1).view(np.uint8)
    return raw[first % width :][: last - first]


def _width(tensor: StoredTensor) -> int:
    """Bytes of a number of a tensor."""
    return tensor.stored(0, 0).dtype.itemsize


@dataclass(frozen=True)
class Int8Tensor(IntegerTensor):
    """`signed`: [outputs, inputs]. `largest`: [outputs]."""

    signed: StoredTensor
    largest: StoredTensor

    def codes(self, start: int, stop: int) -> tuple[ByteArray, FloatArray, FloatArray]:
        levels = self.signed.stored(start, stop).view(np.uint8) ^ np.uint8(128)
        scales = self.largest.rows(start, stop)[:, None] * SHARE
        return levels, scales, np.full(scales.shape, 128, np.float32)


def read(options: Options, stored: Stored) -> dict[str, LazyTensor]:
    found: dict[str, LazyTensor] = {}
    for end in STATES:
        for name in stored.ending(end):
            found[name] = _table_matrix(stored, name, end)
    for name in stored.ending(".SCB"):
        found[f"{name}.weight"] = _int8_matrix(stored, name)
    return found


def _int8_matrix(stored: Stored, name: str) -> Int8Tensor:
    signed = stored.matrix(f"{name}.weight", ("I8",))
    largest = stored.take(f"{name}.SCB", ("F32",), signed.shape[:1])
    form = stored.optional(f"{name}.weight_format", ("U8", "I8", "I32", "I64"))
    if form is not None and form.shape not in ((), (1,)):
        raise misshapen(form, "one number")
    if form is not None and whole(form).any():
        raise TensorError(f"{form.name} is {whole(form).tolist()}, expected 0, the order of rows; {ORIGINAL}")
    return Int8Tensor(f"{name}.weight", signed.shape, 8, signed.shape[1], None, signed, largest)


def _table_matrix(stored: Stored, name: str, end: str) -> Table4Tensor:
    state = _state(stored.take(f"{name}{end}", ("U8",)))
    shape, size = state["shape"], state["blocksize"]
    halves = stored.take(name, TYPES)
    count = math.prod(shape)
    if halves.shape[1:] not in ((), (1,)) or not halves.shape or halves.shape[0] * _width(halves) < -(-count // 2):
        raise misshapen(halves, f"a column with half a byte for each of the {count} numbers of {list(shape)}")
    table = _values(stored.take(f"{name}.quant_map", ("F32",), (16,)))
    return Table4Tensor(name, shape, halves, table, _blocks(stored, name, state, -(-count // size), size))


def _blocks(stored: Stored, name: str, state: Mapping[str, Any], count: int, size: int) -> Blocks:
    sizes = stored.take(f"{name}.absmax", ("F32", "U8"), (count,))
    if sizes.dtype == "F32":
        return Blocks(size, sizes)
    table = _values(stored.take(f"{name}.nested_quant_map", ("F32",), (256,)))
    outer_size = state["nested_blocksize"]
    outer = _values(stored.take(f"{name}.nested_absmax", ("F32",), (-(-count // outer_size),)))
    return Blocks(size, sizes, table, outer, outer_size, state["nested_offset"])


def _values(tensor: StoredTensor) -> FloatArray:
    return tensor.rows(0, tensor.shape[0])


def _state(tensor: StoredTensor) -> Mapping[str, Any]:
    """What bitsandbytes says of a matrix, as JSON in a tensor of bytes."""
    if len(tensor.shape) != 1 or tensor.shape[0] > LONGEST_STATE:
        raise misshapen(tensor, "the bytes of a short text")
    raw: Array = whole(tensor)
    if not raw.any():
        raise CheckpointError(
            f"{tensor.name}, which has a matrix's shape, is not there; without the weights' files (--plan of a hub id) "
            "edgellm cannot say anything about a bitsandbytes checkpoint: download it first"
        )
    try:
        state = json.loads(raw.tobytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{tensor.name} is not JSON ({error}); download the checkpoint again") from error
    state = state if isinstance(state, dict) else {}
    shape, sizes = state.get("shape"), (state.get("blocksize"), state.get("nested_blocksize", 1))
    if not isinstance(shape, list) or len(shape) != 2 or not all(map(_is_size, (*shape, *sizes))):
        raise CheckpointError(f"{tensor.name} says {str(state)[:200]}, expected the shape of a matrix and its blocks")
    offset = state.get("nested_offset", 0.0)
    if not is_number(offset):
        raise CheckpointError(f"{tensor.name} says nested_offset {short(offset)}, expected a number")
    return {"shape": tuple(shape), "blocksize": sizes[0], "nested_blocksize": sizes[1], "nested_offset": offset}


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_COLUMNS
