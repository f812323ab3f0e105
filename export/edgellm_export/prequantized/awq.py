"""AWQ, as its GEMM kernels hold it: 32-bit words of eight 4-bit levels along the outputs, in an order of their own.

Read as AutoAWQ does (`utils/packing_utils.py`, `dequantize_gemm`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgellm.types import ByteArray, FloatArray
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.prequantized.contract import FLOAT_TYPES, Options, Stored, StoredTensor, misshapen, whole
from edgellm_export.prequantized.levels import IntegerTensor, unpacked

BITS, PACKED = 4, 8
ORDER = np.array([0, 4, 1, 5, 2, 6, 3, 7])  # where a word holds its outputs


@dataclass(frozen=True)
class AWQTensor(IntegerTensor):
    """`words`: [inputs, outputs / 8]. `zero_words`: [groups, outputs / 8]. `scales`: [groups, outputs]. Each read goes
    through the whole matrix."""

    words: StoredTensor
    zero_words: StoredTensor
    scales: StoredTensor

    def codes(self, start: int, stop: int) -> tuple[ByteArray, FloatArray, FloatArray]:
        scales = self.scales.rows(0, self.scales.shape[0])[:, start:stop]
        zero_points = _outputs(self.zero_words, start, stop).astype(np.float32)
        return _outputs(self.words, start, stop), np.ascontiguousarray(scales.T), zero_points


def _outputs(words: StoredTensor, start: int, stop: int) -> ByteArray:
    """[stop - start, inputs or groups]."""
    first, last = start // PACKED, -(-stop // PACKED)
    levels = unpacked(whole(words)[:, first:last], BITS, (last - first) * PACKED)
    ordered = levels.reshape(len(levels), -1, PACKED)[:, :, ORDER].reshape(levels.shape)
    return np.ascontiguousarray(ordered[:, start - first * PACKED : stop - first * PACKED].T)


def read(options: Options, stored: Stored) -> dict[str, LazyTensor]:
    options.one_of("version" if options.data.get("version") is not None else "format", "gemm", ("gemm",))
    if options.data.get("backend") == "llm-awq":
        raise options.refused("backend", "llm-awq", "'auto'")
    bits = "bits" if "bits" in options.data else "w_bit"
    options.one_of(bits, BITS, (BITS,))
    group_size = options.integer("group_size" if "group_size" in options.data else "q_group_size", 128)
    matrices = [_matrix(stored, name, group_size) for name in stored.ending(".qweight")]
    return {matrix.name: matrix for matrix in matrices}


def _matrix(stored: Stored, name: str, group_size: int) -> AWQTensor:
    words = stored.matrix(f"{name}.qweight", ("I32", "U32"))
    inputs, outputs = words.shape[0], words.shape[1] * PACKED
    size = inputs if group_size == -1 else group_size
    if size <= 0 or inputs % size:
        raise misshapen(words, f"a multiple of the group size {group_size} as its rows")
    scales = stored.take(f"{name}.scales", FLOAT_TYPES, (inputs // size, outputs))
    zero_words = stored.take(f"{name}.qzeros", ("I32", "U32"), (inputs // size, words.shape[1]))
    return AWQTensor(f"{name}.weight", (outputs, inputs), BITS, size, None, words, zero_words, scales)
