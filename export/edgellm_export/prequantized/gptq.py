"""GPTQ: 32-bit words of levels along the inputs, a scale and a zero point per group of inputs and output.

Read as gptqmodel does (`utils/model.py`, `nn_modules/qlinear/torch.py`). Checkpoints of version 1 hold zero points less
one, subtracted from the words, so that a zero borrows from its neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgellm.types import Array, ByteArray, FloatArray, IntArray
from edgellm_export.checkpoint.integers import UnusedBias
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.prequantized.contract import FLOAT_TYPES, Options, Stored, StoredTensor, misshapen, whole
from edgellm_export.prequantized.levels import IntegerTensor, unpacked, words_for

BITS = (2, 3, 4, 8)
WORDS = ("I32", "U32")
ONES = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}  # a one in each level of a word


@dataclass(frozen=True)
class GPTQTensor(IntegerTensor):
    """`words`: [inputs * bits / 32, outputs]. `zero_words`: [groups, outputs * bits / 32]. `scales`: [groups, outputs].
    Each read goes through the whole matrix."""

    words: StoredTensor
    zero_words: StoredTensor
    scales: StoredTensor
    less_one: bool

    def codes(self, start: int, stop: int) -> tuple[ByteArray, FloatArray, FloatArray]:
        levels = unpacked(whole(self.words)[:, start:stop].T, self.bits, self.shape[1])
        scales = self.scales.rows(0, self.scales.shape[0])[:, start:stop]
        return levels, np.ascontiguousarray(scales.T), self._zero_points()[:, start:stop].T.astype(np.float32)

    def _zero_points(self) -> ByteArray:
        """[groups, outputs]."""
        words = whole(self.zero_words).astype(np.uint32)
        if self.less_one and self.bits in ONES:
            words += np.uint32(ONES[self.bits])
        found = unpacked(words, self.bits, self.shape[0])
        if self.less_one and self.bits not in ONES:
            found = (found + np.uint8(1)) & np.uint8((1 << self.bits) - 1)
        return found


def read(options: Options, stored: Stored) -> dict[str, LazyTensor]:
    key = "checkpoint_format" if options.data.get("checkpoint_format") is not None else "format"
    version = options.one_of(key, "gptq", ("gptq", "gptq_v2"))
    options.must_lack("is_marlin_format")
    bits = options.one_of("bits", None, BITS)
    group_size = options.integer("group_size", 128)
    if group_size != -1 and group_size < 1:
        raise options.wrong("group_size", group_size, "a number of inputs, or -1 for all")
    varied = bool(options.data.get("dynamic"))  # some matrices have other bits, or other groups
    found: dict[str, LazyTensor] = {}
    for name in stored.ending(".qweight"):
        matrix = _matrix(stored, name, version == "gptq", None if varied else (bits, group_size))
        found[matrix.name] = matrix
        bias = stored.optional(f"{name}.bias", FLOAT_TYPES, matrix.shape[:1])
        if bias is not None:
            found[bias.name] = UnusedBias(bias.name, bias.shape, bias) if _is_zero(bias) else bias
    return found


def _matrix(stored: Stored, name: str, less_one: bool, expected: tuple[int, int] | None) -> GPTQTensor:
    """`expected`: bits and group size; None to find them in the shapes."""
    words = stored.matrix(f"{name}.qweight", WORDS)
    scales = stored.matrix(f"{name}.scales", FLOAT_TYPES)
    zero_words = stored.matrix(f"{name}.qzeros", WORDS)
    index = stored.optional(f"{name}.g_idx", ("I32", "I64"))
    groups, outputs = scales.shape
    bits = expected[0] if expected else zero_words.shape[1] * 32 // outputs
    inputs = _inputs(words, bits, index)
    if bits not in BITS or words.shape != (words_for(inputs, bits), outputs):
        raise misshapen(words, f"[{inputs} * {bits} / 32, {outputs}], by its scales, bits and g_idx")
    if zero_words.shape != (groups, words_for(outputs, bits)):
        raise misshapen(zero_words, f"[{groups}, {words_for(outputs, bits)}], by its scales")
    size = expected[1] if expected else -(-inputs // groups)
    size = inputs if size == -1 else min(size, inputs)
    order = _order(index, inputs, groups, size, scales)
    return GPTQTensor(f"{name}.weight", (outputs, inputs), bits, size, order, words, zero_words, scales, less_one)


def _inputs(words: StoredTensor, bits: int, index: StoredTensor | None) -> int:
    """As many as have a group, or else as there is room for."""
    if index is None:
        return words.shape[0] * 32 // bits if bits else 0
    if len(index.shape) != 1:
        raise misshapen(index, "a number for each input")
    return index.shape[0]


def _order(index: StoredTensor | None, inputs: int, groups: int, size: int, scales: StoredTensor) -> IntArray | None:
    """The group of each column; None where they lie side by side."""
    plain = np.arange(inputs) // size
    found = plain if index is None else whole(index).astype(np.int64)
    if found.shape != (inputs,) or found.min() < 0 or found.max() >= groups:
        raise misshapen(scales, f"a row for each of the groups of {size} of {inputs} inputs, and of its g_idx")
    return None if np.array_equal(found, plain) else found


def _is_zero(bias: StoredTensor) -> bool:
    values: Array = whole(bias)
    return not values.any()
