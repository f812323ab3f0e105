"""Checkpoints quantized as each method's format says, and the numbers that their matrices stand for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

Parts = Mapping[str, torch.Tensor]
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
NF4 = np.array([-1, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0,
                0.0795803, 0.16093020, 0.24611230, 0.33791524, 0.44070983, 0.56261700, 0.72295684, 1],
               np.float32)  # fmt: skip
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)


@dataclass(frozen=True)
class Method:
    """`pack`: a matrix [outputs, inputs] to what is stored, by what follows its layer's name, and the numbers that it
    stands for. `config`: quantization_config."""

    pack: Callable[[np.ndarray], tuple[Parts, np.ndarray]]
    config: Mapping[str, Any] = field(default_factory=dict)


def quantize(path: Path, method: Method, layers: tuple[str, ...] = ("_proj",)) -> dict[str, np.ndarray]:
    """Quantizes a directory's layers whose names end so. Returns the numbers that their matrices stand for."""
    tensors, widened = load_file(path / "model.safetensors"), {}
    for name in [name for name in tensors if name.removesuffix(".weight").endswith(layers)]:
        layer = name.removesuffix(".weight")
        parts, widened[name] = method.pack(tensors.pop(name).float().numpy())
        tensors |= {f"{layer}.{part}": value.contiguous().clone() for part, value in parts.items()}
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"quantization_config": dict(method.config)}))
    return widened


@dataclass(frozen=True)
class Groups:
    """levels, [outputs, inputs]; scales (of float16) and zero points, [outputs, groups]."""

    levels: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray
    index: np.ndarray

    @property
    def numbers(self) -> np.ndarray:
        return ((self.levels - self.zeros[:, self.index]) * self.scales[:, self.index]).astype(np.float32)


def grouped(weight: np.ndarray, bits: int, size: int, *, symmetric: bool, index: np.ndarray | None = None) -> Groups:
    columns = weight.shape[1]
    index = np.arange(columns) // (size if size > 0 else columns) if index is None else index
    parts = [weight[:, index == group] for group in range(index.max() + 1)]
    low = np.stack([np.minimum(part.min(1), 0) for part in parts], 1)
    high = np.stack([np.maximum(part.max(1), 0) for part in parts], 1)
    middle = 1 << (bits - 1)
    spread = np.maximum(high, -low) / (middle - 1) if symmetric else (high - low) / (2 * middle - 1)
    scales = spread.astype(np.float16).astype(np.float32)
    zeros = np.full(scales.shape, middle) if symmetric else np.clip(np.rint(-low / scales), 0, 2 * middle - 1)
    levels = np.clip(np.rint(weight / scales[:, index]) + zeros[:, index], 0, 2 * middle - 1)
    return Groups(levels.astype(np.int64), scales, zeros.astype(np.int64), index)


def words(values: np.ndarray, bits: int) -> torch.Tensor:
    """[rows, count] to 32-bit words along the rows."""
    rows, each = len(values), 32 // bits
    spread = values.reshape(rows, -1, each) << (bits * np.arange(each))
    return torch.from_numpy(spread.sum(-1).astype(np.uint32).view(np.int32))


def gptq(bits: int, size: int, *, symmetric: bool, order: bool = False) -> Method:
    def pack(weight: np.ndarray) -> tuple[Parts, np.ndarray]:
        columns = weight.shape[1]
        index = np.arange(columns) // (size if size > 0 else columns)
        found = grouped(weight, bits, size, symmetric=symmetric, index=index[np.argsort(weight[0])] if order else index)
        qzeros = words(found.zeros.T, bits).numpy().view(np.uint32) - np.uint32(sum(1 << i for i in range(0, 32, bits)))
        return {
            "qweight": words(found.levels, bits).T,
            "qzeros": torch.from_numpy(qzeros.view(np.int32)),
            "scales": torch.from_numpy(found.scales.T).half(),
            "g_idx": torch.from_numpy(found.index).int(),
            "bias": torch.zeros(len(weight), dtype=torch.float16),  # as AutoGPTQ writes it for layers that have none
        }, found.numbers

    settings = {"bits": bits, "group_size": size, "sym": symmetric, "desc_act": order}
    return Method(pack, {"quant_method": "gptq", **settings})


def awq(size: int) -> Method:
    def pack(weight: np.ndarray) -> tuple[Parts, np.ndarray]:
        found = grouped(weight, 4, size, symmetric=False)
        ordered = [each.T.reshape(each.shape[1], -1, 8)[:, :, AWQ_ORDER] for each in (found.levels, found.zeros)]
        qweight, qzeros = (words(each.reshape(len(each), -1), 4) for each in ordered)
        return {"qweight": qweight, "qzeros": qzeros, "scales": torch.from_numpy(found.scales.T).half()}, found.numbers

    return Method(pack, {"quant_method": "awq", "bits": 4, "group_size": size, "version": "gemm", "zero_point": True})


def ct(form: str, **weights: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    settings = {"format": form, "quantization_status": "compressed", "ignore": ["lm_head"]}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, **settings}


def ct_int4(size: int) -> Method:
    def pack(weight: np.ndarray) -> tuple[Parts, np.ndarray]:
        found = grouped(weight, 4, size, symmetric=True)
        return {
            "weight_packed": words(found.levels, 4),
            "weight_scale": torch.from_numpy(found.scales).half(),
            "weight_shape": torch.tensor(weight.shape),
        }, found.numbers

    return Method(pack, ct("pack-quantized", num_bits=4, strategy="group", group_size=size))


def ct_int8() -> Method:
    def pack(weight: np.ndarray) -> tuple[Parts, np.ndarray]:
        found = grouped(weight, 8, -1, symmetric=True)
        signed = torch.from_numpy((found.levels - 128).astype(np.int8))
        return {"weight": signed, "weight_scale": torch.from_numpy(found.scales)}, found.numbers

    return Method(pack, ct("int-quantized", num_bits=8, strategy="channel"))


def ct_mxfp4() -> Method:
    def pack(weight: np.ndarray) -> tuple[Parts, np.ndarray]:
        blocks = weight.reshape(len(weight), -1, 32)
        exponents = np.ceil(np.log2(np.abs(blocks).max(2) / 6))
        shares = blocks / np.exp2(exponents)[..., None]
        codes = np.abs(np.abs(shares)[..., None] - FP4).argmin(-1) | np.where(shares < 0, 8, 0)
        values = (np.where(codes & 8, -1, 1) * FP4[codes & 7] * np.exp2(exponents)[..., None]).reshape(weight.shape)
        flat = codes.reshape(len(weight), -1).astype(np.uint8)
        return {
            "weight_packed": torch.from_numpy(flat[:, ::2] | flat[:, 1::2] << 4),
            "weight_scale": torch.from_numpy((exponents + 127).astype(np.uint8)),
        }, values.astype(np.float32)

    return Method(pack, ct("mxfp4-pack-quantized", num_bits=4, type="float", strategy="group", group_size=32))


def fp8_blocks(height: int, width: int) -> Method:
    def pack(weight: np.ndarray) -> tuple[Parts, np.ndarray]:
        rows, columns = weight.shape
        blocks = torch.from_numpy(weight).reshape(rows // height, height, columns // width, width)
        scales = blocks.abs().amax((1, 3)) / 448
        numbers = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn)
        values = (numbers.float() * scales[:, None, :, None]).reshape(rows, columns)
        return {"weight": numbers.reshape(rows, columns), "weight_scale_inv": scales}, values.numpy()

    settings = {"activation_scheme": "dynamic", "weight_block_size": [height, width]}
    return Method(pack, {"quant_method": "fp8", **settings})


def bnb_nf4() -> Method:
    def pack(weight: np.ndarray) -> tuple[Parts, np.ndarray]:
        blocks = weight.reshape(-1, 64)
        largest = np.abs(blocks).max(1)
        codes = np.abs((blocks / largest[:, None])[..., None] - NF4).argmin(-1)
        values = (NF4[codes] * largest[:, None]).reshape(weight.shape)
        flat = codes.reshape(-1).astype(np.uint8)
        state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": list(weight.shape)}
        return {
            "weight": torch.from_numpy(flat[::2] << 4 | flat[1::2])[:, None],
            "weight.absmax": torch.from_numpy(largest),
            "weight.quant_map": torch.from_numpy(NF4),
            "weight.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
        }, values

    return Method(pack, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"})


def bnb_int8() -> Method:
    def pack(weight: np.ndarray) -> tuple[Parts, np.ndarray]:
        largest = np.abs(weight).max(1)
        signed = np.rint(weight / largest[:, None] * 127).astype(np.int8)
        format_number = torch.tensor(0, dtype=torch.uint8)
        parts = {"weight": torch.from_numpy(signed), "SCB": torch.from_numpy(largest), "weight_format": format_number}
        return parts, signed * (largest[:, None] / 127)

    return Method(pack, {"quant_method": "bitsandbytes", "load_in_8bit": True})


def bitnet() -> Method:
    """Four to a byte, of rows a quarter of the matrix apart, beside what they are divided by."""

    def pack(weight: np.ndarray) -> tuple[Parts, np.ndarray]:
        scale = np.abs(weight).mean()
        ternary = np.clip(np.rint(weight / scale), -1, 1)
        quarters = (ternary + 1).astype(np.uint8).reshape(4, -1, weight.shape[1])
        packed = sum(quarter << np.uint8(2 * i) for i, quarter in enumerate(quarters))
        parts = {"weight": torch.from_numpy(packed), "weight_scale": torch.tensor([1 / scale])}
        return parts, (ternary * scale).astype(np.float32)

    return Method(pack, {"quant_method": "bitnet"})


METHODS: Mapping[str, Method] = {
    "gptq-4": gptq(4, 32, symmetric=False),
    "gptq-4-128": gptq(4, 128, symmetric=True),
    "gptq-4-rows": gptq(4, -1, symmetric=True),
    "gptq-4-desc_act": gptq(4, 32, symmetric=True, order=True),
    "gptq-8": gptq(8, 32, symmetric=True),
    "gptq-8-zero": gptq(8, 32, symmetric=False),
    "awq": awq(64),
    "ct-int4": ct_int4(32),
    "ct-int4-128": ct_int4(128),
    "ct-int8": ct_int8(),
    "ct-mxfp4": ct_mxfp4(),
    "fp8": fp8_blocks(16, 64),
    "bnb-nf4": bnb_nf4(),
    "bnb-int8": bnb_int8(),
    "bitnet": bitnet(),
}
