"""Checkpoints that are quantized already, packed by compressed-tensors itself, or as transformers reads fp8."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from making import Edit, Situation, byte_tokenizer, edited, model

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
Pack = Callable[[Any], Mapping[str, Any]]  # a layer's weight to what is stored for it, by what follows its name
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def quantized(pack: Pack, config: Mapping[str, Any], ends: tuple[str, ...] = ("_proj.weight",)) -> Edit:
    """The layers whose weights' names end so are stored in another way."""

    def edit(path: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(path / WEIGHTS)
        for name in [name for name in tensors if name.endswith(ends)]:
            parts = pack(tensors.pop(name))
            tensors |= {f"{name.removesuffix('weight')}{part}": each.contiguous() for part, each in parts.items()}
        save_file(tensors, path / WEIGHTS, {"format": "pt"})
        edited(CONFIG, quantization_config=dict(config))(path)

    return edit


def compressed(form: str, **weights: Any) -> Edit:
    """By compressed-tensors, in one of its formats."""
    group = {"targets": ["Linear"], "weights": weights, "format": form}
    settings = {"format": form, "quantization_status": "compressed", "ignore": ["lm_head"]}
    if weights.get("symmetric") is False:  # else transformers expects zero points that are not packed
        settings["run_compressed"] = False
    config = {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, **settings}

    def pack(weight: Any) -> Mapping[str, Any]:
        from compressed_tensors.compressors.base import BaseCompressor
        from compressed_tensors.quantization import QuantizationScheme
        from compressed_tensors.quantization.utils import calculate_qparams

        scheme = QuantizationScheme(**group)
        args = scheme.weights
        rows, columns = weight.shape
        sizes = {"tensor": (rows, columns), "channel": (1, columns), "block": tuple(args.block_structure or ())}
        height, width = sizes.get(str(args.strategy), (1, args.group_size))
        blocks = weight.reshape(rows // height, height, columns // width, width)
        scale, zero = calculate_qparams(blocks.amin((1, 3)), blocks.amax((1, 3)), args)
        if args.strategy == "tensor":
            scale, zero = scale.reshape(1), zero.reshape(1)
        stored = {"weight": weight, "weight_scale": scale.to(weight.dtype), "weight_zero_point": zero}
        return BaseCompressor.get_value_from_registry(form).compress(stored, scheme)

    return quantized(pack, json.loads(json.dumps(config)))


def fp8(height: int, width: int) -> Edit:
    """E4M3 with a scale for each block, as DeepSeek's and Qwen's checkpoints have it."""

    def pack(weight: Any) -> Mapping[str, Any]:
        import torch

        blocks = weight.reshape(weight.shape[0] // height, height, weight.shape[1] // width, width)
        scale = blocks.abs().amax((1, 3)) / 448
        numbers = (blocks / scale[:, None, :, None]).reshape(weight.shape)
        return {"weight": numbers.to(torch.float8_e4m3fn), "weight_scale_inv": scale}

    settings = {"activation_scheme": "dynamic", "weight_block_size": [height, width]}
    return quantized(pack, {"quant_method": "fp8", **settings})


def llama(name: str, *edits: Edit, **more: Any) -> Situation:
    settings = {**SIZES, "tokenizer": byte_tokenizer, **more}
    return model(f"llama-{name}", "LlamaConfig", "AutoModelForCausalLM", *edits, **settings)


GROUPS = {"strategy": "group", "group_size": 32}
FP8 = {"num_bits": 8, "type": "float"}
SITUATIONS = [
    llama("ct-int4", compressed("pack-quantized", num_bits=4, **GROUPS)),
    llama("ct-int4-zero", compressed("pack-quantized", num_bits=4, symmetric=False, **GROUPS), versions=("5",)),
    llama(
        "ct-int4-channel",
        compressed("pack-quantized", num_bits=4, symmetric=False, strategy="channel"),
        versions=("5",),  # 4.57 does not read zero points of compressed-tensors 0.20
    ),
    llama("ct-int8-packed", compressed("pack-quantized", num_bits=8, **GROUPS)),
    llama("ct-int8-channel", compressed("int-quantized", num_bits=8, strategy="channel")),
    llama("ct-int8-tensor", compressed("naive-quantized", num_bits=8, symmetric=False, strategy="tensor")),
    llama("ct-fp8-channel", compressed("float-quantized", strategy="channel", **FP8)),
    llama("ct-fp8-tensor", compressed("float-quantized", strategy="tensor", **FP8)),
    llama("ct-fp8-block", compressed("float-quantized", strategy="block", block_structure=[16, 32], **FP8)),
    llama("fp8-blocks", fp8(16, 32), versions=("5",)),  # 4.57 reads it on a GPU only
    llama("fp8-rows", fp8(1, 64), versions=("5",)),
    llama(
        "quantized-by-others", quantized(lambda weight: {"weight": weight}, {"quant_method": "hqq"}), refused="'hqq'"
    ),
]
