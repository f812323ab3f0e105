"""Block-wise fp8 (DeepSeek, Qwen3) and MXFP8: weights of type E4M3, a scale for each block of rows and columns.

Read as transformers does (`integrations/finegrained_fp8.py`, `Fp8Dequantize`).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.types import FloatArray
from edgellm_export.checkpoint.integers import QuantizedTensor
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.prequantized.contract import DECODED, Options, Scales, Stored, StoredTensor, misshapen
from edgellm_export.prequantized.levels import widths

SCALE = ".weight_scale_inv"
BLOCK = (128, 128)


@dataclass(frozen=True)
class FP8Tensor(QuantizedTensor):
    """A matrix of E4M3 numbers, times `scales`."""

    numbers: StoredTensor
    scales: Scales

    def rows(self, start: int, stop: int) -> FloatArray:
        found = DECODED[self.numbers.dtype][self.numbers.stored(start, stop)]
        found *= widths(self.scales.rows(start, stop), self.scales.width, self.shape[1])
        return found


def read(options: Options, stored: Stored) -> dict[str, LazyTensor]:
    block = _block_size(options)
    options.one_of("expert_dtype", "fp8", ("fp8",))
    stored.drop(".activation_scale", ".input_scale")
    matrices = [_matrix(stored, name, block) for name in stored.ending(SCALE)]
    return {matrix.name: matrix for matrix in matrices}


def _block_size(options: Options) -> tuple[int, int] | None:
    """None where a matrix has one scale."""
    value = options.data.get("weight_block_size", BLOCK)
    if value is None:
        return None
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(each) is int and each > 0 for each in value):
        return value[0], value[1]
    raise options.wrong("weight_block_size", value, "two numbers of rows and columns")


def _matrix(stored: Stored, name: str, block: tuple[int, int] | None) -> FP8Tensor:
    numbers = stored.matrix(f"{name}.weight", ("F8_E4M3",))
    scales = stored.take(f"{name}{SCALE}", ("F32", "BF16", "F16", "F8_E8M0", "U8"))
    height, width = _size_of_blocks(numbers, scales, block)
    return FP8Tensor(f"{name}.weight", numbers.shape, numbers, Scales(scales, height, width))


def _size_of_blocks(numbers: StoredTensor, scales: StoredTensor, block: tuple[int, int] | None) -> tuple[int, int]:
    """By the config, where its blocks are as many as there are scales; else by the number of scales."""
    rows, columns = numbers.shape
    grid = (1, 1) if scales.shape in ((), (1,)) else scales.shape
    if block is not None and grid == (-(-rows // block[0]), -(-columns // block[1])):
        return min(block[0], rows), min(block[1], columns)
    if len(grid) != 2 or 0 in grid or rows % grid[0] or columns % grid[1]:
        raise misshapen(scales, f"one for each of the blocks of {block} of a matrix of {list(numbers.shape)}")
    return rows // grid[0], columns // grid[1]
