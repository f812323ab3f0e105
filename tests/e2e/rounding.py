"""A torch model with the weights that a precision keeps of it: only arithmetic is left between it and a package."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

BLOCK_SIZE = 32
ROUTERS = (".gate", ".router", ".router.layer")
KEPT = (  # in float32
    "wpe", "embed_positions", "conv.conv", "conv1d", "altup.modality_router", "altup.prediction_coefs",
    "altup.correction_coefs",
)  # fmt: skip
BITS = {"fp16": 16, "int8": 8, "int4": 4}


@torch.no_grad()
def rounded(model: Any, precision: str) -> Any:
    """A copy of `model` whose matrices went through `precision`; vectors, learned positions, short convolutions
    and AltUp's products with a few numbers stay float32."""
    result = copy.deepcopy(model)
    outer = (result.get_input_embeddings(), result.get_output_embeddings())
    for name, module in result.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim < 2 or name.endswith(KEPT):
            continue
        if module is outer[1] and weight is outer[0].weight:
            continue  # tied, and rounded already
        matrix = weight.T if isinstance(module, Conv1D) else weight
        in_8 = module in outer or name.endswith((*ROUTERS, "embed_tokens_per_layer"))
        bits = 8 if precision == "int4" and in_8 else BITS[precision]
        for each in matrix if matrix.ndim == 3 else _heads(name, matrix, model.config):  # of experts
            each.copy_(torch.from_numpy(_round(np.ascontiguousarray(each.numpy()), bits)))
    for name, parameter in result.named_parameters():
        if parameter.ndim == 3 and not name.endswith(".weight"):  # gpt-oss's experts, [inputs, outputs] each
            for matrix in parameter:
                each = np.ascontiguousarray(matrix.T.numpy())
                matrix.copy_(torch.from_numpy(_round(each, BITS[precision]).T.copy()))
    return result


def _heads(name: str, matrix: Any, config: Any) -> list[Any]:
    """The matrix; what makes DeepSeek's keys and values is apart, head by head, and what makes keys turned around."""
    if not name.endswith("kv_b_proj"):
        return [matrix]
    sizes = config.qk_nope_head_dim, config.v_head_dim
    heads = [head.split(sizes) for head in matrix.split(sum(sizes))]
    return [part for keys, values in heads for part in (keys.T, values)]


def _round(matrix: np.ndarray, bits: int) -> np.ndarray:
    """Written anew, not taken from the exporter: a mistake there must not be in the reference too."""
    if bits == 16:
        return matrix.astype(np.float16).astype(np.float32)
    padded = np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % BLOCK_SIZE)))
    blocks = padded.reshape(len(matrix), -1, BLOCK_SIZE)
    if bits == 8:  # symmetric, -127 to 127
        zero = np.float32(0)
        scale = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
        low, high = -127, 127
    else:  # from the least to the greatest, or zero; 0 to 15
        least = np.minimum(blocks.min(axis=-1, keepdims=True), 0)
        greatest = np.maximum(blocks.max(axis=-1, keepdims=True), 0)
        scale = (greatest - least) / np.float32(15)
        zero = np.rint(-least / np.where(scale == 0, 1, scale))
        low, high = 0, 15
    quants = np.clip(np.rint(blocks / np.where(scale == 0, 1, scale)) + zero, low, high)
    return ((quants - zero) * scale).reshape(len(matrix), -1)[:, : matrix.shape[1]]
