"""A torch model with the weights that a precision keeps of it: only arithmetic is left between it and a package."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from edgellm_export.quantize import blockwise

BLOCK_SIZE = 32
BITS = {"fp16": 16, "int8": 8, "int4": 4}


@torch.no_grad()
def rounded(model: Any, precision: str) -> Any:
    """A copy of `model` whose matrices went through `precision`; vectors and learned positions stay float32."""
    result = copy.deepcopy(model)
    outer = (result.get_input_embeddings(), result.get_output_embeddings())
    for name, module in result.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim != 2 or name.endswith("wpe"):
            continue
        if module is outer[1] and weight is outer[0].weight:
            continue  # tied, and rounded already
        matrix = weight.T if isinstance(module, Conv1D) else weight
        bits = 8 if precision == "int4" and module in outer else BITS[precision]
        matrix.copy_(torch.from_numpy(_round(np.ascontiguousarray(matrix.numpy()), bits)))
    return result


def _round(matrix: np.ndarray, bits: int) -> np.ndarray:
    if bits == 16:
        return matrix.astype(np.float16).astype(np.float32)
    blocks = blockwise.quantize(matrix, bits=bits, block_size=BLOCK_SIZE, symmetric=bits == 8)
    return blockwise.dequantize(blocks, bits=bits, columns=matrix.shape[1])
