"""MXFP4 as gpt-oss has it: blocks of 32 numbers of type E2M1, two in a byte, and an exponent of two for each block.

Read as transformers does (`integrations/mxfp4.py`, `convert_moe_packed_tensors`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgellm.errors import TensorError
from edgellm.types import Array, FloatArray
from edgellm_export.checkpoint.integers import Integers, QuantizedTensor
from edgellm_export.checkpoint.tensors import LazyTensor, Transposed
from edgellm_export.prequantized.contract import E8M0, FP4, Options, Stored, StoredTensor

BLOCKS, SCALES = "_blocks", "_scales"
BYTES = 16  # of a block
MIDDLE = 128  # of eight bits


def fp4_values(packed: Array) -> FloatArray:
    """[..., 2 * bytes] of [..., bytes]: the lower half of a byte is the first number."""
    return FP4[np.stack([packed & 15, packed >> 4], axis=-1)].reshape(*packed.shape[:-1], 2 * packed.shape[-1])


@dataclass(frozen=True)
class MXFP4Experts(QuantizedTensor):
    """[experts, inputs, outputs]. `blocks`: [experts, outputs, inputs / 32, 16]. `scales`: a byte for each block."""

    blocks: StoredTensor
    scales: StoredTensor

    def item(self, index: int) -> LazyTensor:
        """One expert's matrix [inputs, outputs]."""
        shape = (self.shape[2], self.shape[1])
        return Transposed(self.name, MXFP4Matrix(self.name, shape, self.blocks, self.scales, index))

    def rows(self, start: int, stop: int) -> FloatArray:
        values = fp4_values(self.blocks.stored(start, stop))  # [experts, outputs, blocks, 32]
        values *= E8M0[self.scales.stored(start, stop)][..., None]
        return np.ascontiguousarray(values.reshape(*values.shape[:2], self.shape[1]).swapaxes(1, 2))


@dataclass(frozen=True)
class MXFP4Matrix(QuantizedTensor):
    """One expert's of MXFP4Experts: [outputs, inputs]. Its numbers are halves of whole ones up to 12, times a power of
    two, so eight bits hold them as they are."""

    blocks: StoredTensor
    scales: StoredTensor
    index: int

    def rows(self, start: int, stop: int) -> FloatArray:
        values, scales = self._values(start, stop)
        values *= scales[..., None]
        return values.reshape(stop - start, self.shape[1])

    def integers(self, start: int, stop: int) -> Integers | None:
        values, scales = self._values(start, stop)
        levels = (values * 2 + MIDDLE).astype(np.uint8).reshape(stop - start, self.shape[1])
        middles = np.full(scales.shape, MIDDLE, np.float32)
        return Integers(8, 2 * BYTES, levels, scales * np.float32(0.5), middles, written=4)

    def _values(self, start: int, stop: int) -> tuple[FloatArray, FloatArray]:
        """[rows, blocks, 32] of type E2M1, and [rows, blocks] that they are multiplied by."""
        (blocks,), (scales,) = (each.stored(self.index, self.index + 1) for each in (self.blocks, self.scales))
        return fp4_values(blocks[start:stop]), E8M0[scales[start:stop]]


def read(options: Options, stored: Stored) -> dict[str, LazyTensor]:
    matrices = [_experts(stored, name) for name in stored.ending(BLOCKS)]
    return {each.name: each for each in matrices}


def _experts(stored: Stored, name: str) -> MXFP4Experts:
    blocks = stored.take(f"{name}{BLOCKS}", ("U8",))
    if len(blocks.shape) != 4 or blocks.shape[3] != BYTES:
        raise TensorError(f"{name}{BLOCKS} has shape {list(blocks.shape)}, expected experts, outputs, blocks, {BYTES}")
    experts, outputs, count, _ = blocks.shape
    scales = stored.take(f"{name}{SCALES}", ("U8", "F8_E8M0"), blocks.shape[:3])
    return MXFP4Experts(name, (experts, count * 2 * BYTES, outputs), blocks, scales)
