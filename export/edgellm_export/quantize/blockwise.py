"""Integer matrices as MatMulNBits and GatherBlockQuantized expect them: pure array functions.

A row of K weights is cut into blocks; a block has one float32 scale and, if asymmetric, one zero point. Layout: ORT's
contrib operator specification of com.microsoft.MatMulNBits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgellm.types import ByteArray, FloatArray
from edgellm_export.quantize.grid import Codes, Grid


@dataclass(frozen=True)
class Blocks:
    """Quantized rows. quants: [rows, blocks, block_size * bits / 8] uint8. scales: [rows, blocks] float32.
    zero_points: [rows, ceil(blocks * bits / 8)] uint8, or None when the middle value is the zero point."""

    quants: ByteArray
    scales: FloatArray
    zero_points: ByteArray | None


def arrange(codes: Codes, grid: Grid) -> Blocks:
    """`codes` in the operators' layout: K is padded to a whole number of blocks with weights of zero."""
    size = grid.block_size
    rows, columns = codes.levels.shape
    levels = codes.levels
    if columns % size:
        padding = np.repeat(codes.zero_points[:, -1:].astype(np.uint8), -columns % size, axis=1)
        levels = np.concatenate([levels, padding], axis=1)
    quants = pack(levels.reshape(rows, -1, size), grid.bits)
    zero_points = None if grid.symmetric else pack(_even(codes.zero_points.astype(np.uint8), grid.bits), grid.bits)
    return Blocks(quants, codes.scales, zero_points)


def pack(values: ByteArray, bits: int) -> ByteArray:
    """Eight bits: as they are. Four bits: two along the last axis per byte, the first in the low half."""
    if bits == 8:
        return values
    return np.asarray(values[..., 0::2] | (values[..., 1::2] << np.uint8(4)))


def _even(values: ByteArray, bits: int) -> ByteArray:
    """Pad the last axis so that it packs into whole bytes."""
    return np.pad(values, ((0, 0), (0, values.shape[-1] % 2))) if bits == 4 else values
