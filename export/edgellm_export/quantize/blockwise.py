"""Block-wise weights as MatMulNBits and GatherBlockQuantized expect them: pure array functions.

A row of K weights is cut into blocks of `block_size`; a block has one float32 scale and, if asymmetric, one zero point:
weight = scale * (q - zero_point). Layout: ORT's contrib operator specification of com.microsoft.MatMulNBits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Blocks:
    """Quantized rows. quants: [rows, blocks, block_size * bits / 8] uint8. scales: [rows, blocks] float32.
    zero_points: [rows, ceil(blocks * bits / 8)] uint8, or None when the middle value is the zero point."""

    quants: ByteArray
    scales: FloatArray
    zero_points: ByteArray | None


def quantize(rows: FloatArray, *, bits: int, block_size: int, symmetric: bool) -> Blocks:
    """Round-to-nearest. rows: [rows, K] float32; K is padded with zeros to a whole number of blocks."""
    blocks = _split(rows, block_size)
    if symmetric:
        scales = _symmetric_scales(blocks, bits)
        zero_points = np.full(scales.shape, 1 << (bits - 1), np.float32)
    else:
        scales, zero_points = _asymmetric(blocks, bits)
    inverse = np.where(scales == 0, 0, 1 / np.where(scales == 0, 1, scales)).astype(np.float32)
    quants = blocks * inverse[..., None]
    np.rint(quants, out=quants)
    quants += zero_points[..., None]
    np.clip(quants, 0, (1 << bits) - 1, out=quants)
    packed = pack(quants.astype(np.uint8), bits)
    return Blocks(packed, scales, None if symmetric else pack(_even(zero_points.astype(np.uint8), bits), bits))


def dequantize(blocks: Blocks, *, bits: int, columns: int) -> FloatArray:
    """The slow and obvious inverse: [rows, columns] float32."""
    quants = unpack(blocks.quants, bits).astype(np.float32)
    if blocks.zero_points is None:
        zero_points = np.full(blocks.scales.shape, 1 << (bits - 1), np.float32)
    else:
        zero_points = unpack(blocks.zero_points, bits)[:, : blocks.scales.shape[1]].astype(np.float32)
    values = (quants - zero_points[..., None]) * blocks.scales[..., None]
    return values.reshape(len(values), -1)[:, :columns]


def pack(values: ByteArray, bits: int) -> ByteArray:
    """Eight bits: as they are. Four bits: two along the last axis per byte, the first in the low half."""
    if bits == 8:
        return values
    return np.asarray(values[..., 0::2] | (values[..., 1::2] << np.uint8(4)))


def unpack(packed: ByteArray, bits: int) -> ByteArray:
    """The inverse of `pack`."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def _split(rows: FloatArray, block_size: int) -> FloatArray:
    count, columns = rows.shape
    padding = -columns % block_size
    if padding:
        rows = np.pad(rows, ((0, 0), (0, padding)))
    return rows.reshape(count, -1, block_size)


def _even(values: ByteArray, bits: int) -> ByteArray:
    """Pad the last axis so that it packs into whole bytes."""
    return np.pad(values, ((0, 0), (0, values.shape[-1] % 2))) if bits == 4 else values


def _symmetric_scales(blocks: FloatArray, bits: int) -> FloatArray:
    """8 bits: largest magnitude / 127. 4 bits: signed value of largest magnitude / -8, so the full range serves it."""
    high = blocks.max(axis=-1)
    low = blocks.min(axis=-1)
    if bits == 8:
        return np.asarray(np.maximum(high, -low) / 127, np.float32)
    return np.asarray(np.where(high > -low, high, low) / -(1 << (bits - 1)), np.float32)


def _asymmetric(blocks: FloatArray, bits: int) -> tuple[FloatArray, FloatArray]:
    """Scales and zero points that span each block's range, widened to hold zero."""
    low = np.minimum(blocks.min(axis=-1), 0)
    high = np.maximum(blocks.max(axis=-1), 0)
    scales = ((high - low) / ((1 << bits) - 1)).astype(np.float32)
    zero_points = np.rint(-low / np.where(scales == 0, 1, scales))
    return scales, np.clip(zero_points, 0, (1 << bits) - 1).astype(np.float32)
