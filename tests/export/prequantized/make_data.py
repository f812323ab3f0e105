"""Writes data/: small quantized matrices as each method's own library packs them, and what it reads of them again.

    python make_data.py METHOD...

Each method needs its library (gptq: gptqmodel; awq: autoawq; compressed-tensors; bitsandbytes; fp8, mxfp4:
transformers 5) and torch, which edgellm's own tests do without. A file has the stored tensors, "expected NAME" for each
matrix, and as metadata the quantization_config and the library's version.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

DATA = Path(__file__).parent / "data"


def drawn(rows: int, columns: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) / 8).to(dtype)


def save(name: str, library: str, config: dict[str, Any], tensors: dict[str, torch.Tensor], **expected: Any) -> None:
    wanted = {f"expected {key}": value for key, value in expected.items()}
    metadata = {"config": json.dumps(config), "made_by": f"{library} {importlib.metadata.version(library)}"}
    contents = {key: value.detach().contiguous().clone() for key, value in (tensors | wanted).items()}
    save_file(contents, DATA / f"{name}.safetensors", metadata)
    print(name, {key: list(value.shape) for key, value in contents.items()})


def gptq() -> None:
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization import QuantizeConfig
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module, convert_gptq_v2_to_v1_format_module

    def case(name: str, bits: int, size: int, *, sym: bool, order: bool = False, version: str = "gptq") -> None:
        rows, columns = 64, 96 if size == 32 else 128
        width = columns if size == -1 else size
        index = torch.arange(columns) // width
        if order:
            index = index[torch.randperm(columns, generator=torch.Generator().manual_seed(1))]
        weight, highest = drawn(rows, columns), 2**bits - 1
        groups = [weight[:, index == group] for group in range(int(index.max()) + 1)]
        low = torch.stack([each.min(dim=1).values.clamp(max=0) for each in groups], dim=1)
        high = torch.stack([each.max(dim=1).values.clamp(min=0) for each in groups], dim=1)
        scales = (2 * torch.maximum(high, -low) if sym else high - low) / highest
        zeros = torch.full_like(scales, 2 ** (bits - 1)) if sym else torch.round(-low / scales)
        if not sym:  # ends of the range, where version 1 borrows
            zeros[0, 0], zeros[1, 0], zeros[2, -1] = 0, highest, 0
        linear = torch.nn.Linear(columns, rows, bias=False, dtype=torch.float16)
        linear.weight.data = weight.half()
        settings = {"bits": bits, "group_size": size, "sym": sym, "desc_act": order}
        made = TorchLinear(**settings, in_features=columns, out_features=rows, bias=False)
        made.pack(linear, scales, zeros, index.int())
        if version == "gptq":
            convert_gptq_v2_to_v1_format_module(made, QuantizeConfig(bits=bits, group_size=size))
        stored = {f"w.{key}": value.clone() for key, value in made.state_dict().items()}
        if version == "gptq":
            convert_gptq_v1_to_v2_format_module(made, bits, torch.int32)
        made.post_init()
        config = {"quant_method": "gptq", **settings, "checkpoint_format": version}
        save(name, "gptqmodel", config, stored, w=made.dequantize_weight().T)

    for bits in (2, 3, 4, 8):
        case(f"gptq-{bits}bit", bits, 32, sym=False)
    case("gptq-4bit-rows", 4, -1, sym=False)
    case("gptq-4bit-128-sym", 4, 128, sym=True)
    case("gptq-4bit-desc_act", 4, 32, sym=False, order=True)
    case("gptq-4bit-v2", 4, 32, sym=False, version="gptq_v2")
    case("gptq-8bit-sym", 8, 32, sym=True)


def awq() -> None:
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm

    for name, size in (("awq-32", 32), ("awq-rows", -1)):
        rows, columns = 64, 96
        width = columns if size == -1 else size
        weight = drawn(rows, columns)
        groups = weight.reshape(rows, -1, width)
        low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
        scales = ((high - low) / 15).half()
        zeros = torch.round(-low / scales).clamp(0, 15)
        linear = torch.nn.Linear(columns, rows, bias=False)
        linear.weight.data = weight
        made = WQLinear_GEMM.from_linear(linear, 4, width, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())
        expected = dequantize_gemm(made.qweight, made.qzeros, made.scales, 4, width)
        config = {"quant_method": "awq", "bits": 4, "group_size": size, "version": "gemm", "zero_point": True}
        save(name, "autoawq", config, {f"w.{key}": value for key, value in made.state_dict().items()}, w=expected.T)


def compressed_tensors() -> None:
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    def parameters(weight: torch.Tensor, args: QuantizationArgs) -> dict[str, torch.Tensor]:
        rows, columns = weight.shape
        height, width = {
            "tensor": (rows, columns),
            "channel": (1, columns),
            "block": tuple(args.block_structure or (1, 1)),
        }.get(str(args.strategy), (1, args.group_size))
        padded = torch.nn.functional.pad(weight, (0, -columns % width, 0, -rows % height))
        blocks = padded.reshape(padded.shape[0] // height, height, padded.shape[1] // width, width)
        low, high = blocks.amin((1, 3)), blocks.amax((1, 3))
        overall = generate_gparam(weight.min(), weight.max()) if args.strategy == "tensor_group" else None
        scale, zero_point = calculate_qparams(low, high, args, global_scale=overall)
        extra = {} if overall is None else {"weight_global_scale": overall.reshape(1)}
        return {"weight_scale": scale, "weight_zero_point": zero_point, **extra}

    def case(name: str, form: str, dtype: torch.dtype = torch.bfloat16, **arguments: Any) -> None:
        args = QuantizationArgs(**arguments)
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        weight = drawn(40 if args.strategy == "block" else 64, 96, dtype=dtype)
        found = {
            key: value.to(dtype) if key == "weight_scale" else value for key, value in parameters(weight, args).items()
        }
        kind = BaseCompressor.get_value_from_registry(form)
        stored = kind.compress({"weight": weight, **found}, scheme)
        expected = kind.decompress(dict(stored), scheme)["weight"]
        config = QuantizationConfig(
            config_groups={"group_0": scheme}, format=form, quantization_status="compressed", ignore=["lm_head"]
        ).model_dump(mode="json")
        stored = {f"w.{key}": value for key, value in stored.items()}
        save(f"ct-{name}", "compressed-tensors", json.loads(json.dumps(config)), stored, w=expected)

    packed, whole = "pack-quantized", "int-quantized"
    group = {"strategy": "group", "group_size": 32}
    case("int4-group", packed, num_bits=4, **group)
    case("int4-group-zero", packed, torch.float16, num_bits=4, symmetric=False, **group)
    case("int4-channel-zero", packed, num_bits=4, symmetric=False, strategy="channel")
    case("int3-group", packed, num_bits=3, **group)
    case("int8-packed", packed, num_bits=8, **group)
    case("int8-channel", whole, num_bits=8, strategy="channel")
    case("int8-channel-zero", whole, torch.float32, num_bits=8, symmetric=False, strategy="channel")
    case("int8-tensor", whole, num_bits=8, strategy="tensor")
    case("int8-naive-group", "naive-quantized", num_bits=8, **group)
    case("fp8-channel", "float-quantized", num_bits=8, type="float", strategy="channel")
    case("fp8-tensor", "float-quantized", torch.float32, num_bits=8, type="float", strategy="tensor")
    case("fp8-block", "float-quantized", num_bits=8, type="float", strategy="block", block_structure=[16, 32])
    case("mxfp4", "mxfp4-pack-quantized", num_bits=4, type="float", scale_dtype=torch.uint8, **group)
    case("mxfp8", "mxfp8-quantized", num_bits=8, type="float", scale_dtype=torch.uint8, **group)
    narrow = {"strategy": "tensor_group", "group_size": 16}
    case("nvfp4", "nvfp4-pack-quantized", num_bits=4, type="float", scale_dtype=torch.float8_e4m3fn, **narrow)


def bitsandbytes() -> None:
    from bitsandbytes import functional

    # bitsandbytes' kernel for AVX512 misreads blocks that end within a row of 96; its others read them as edgellm does.
    cases = {
        "nf4": ("nf4", False, torch.float32, torch.uint8, (64, 128)),
        "nf4-double": ("nf4", True, torch.bfloat16, torch.uint8, (132, 128)),
        "fp4-double": ("fp4", True, torch.float16, torch.uint8, (132, 128)),
        "nf4-odd-bf16": ("nf4", False, torch.float32, torch.bfloat16, (10, 34)),
    }
    for name, (kind, double, dtype, storage, shape) in cases.items():
        packed, state = functional.quantize_4bit(
            drawn(*shape, dtype=dtype), quant_type=kind, compress_statistics=double, quant_storage=storage
        )
        stored = {f"w.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
        expected = functional.dequantize_4bit(packed, state)
        config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
        save(f"bnb-{name}", "bitsandbytes", config, {"w.weight": packed, **stored}, w=expected)
    signed, largest, _ = functional.int8_vectorwise_quant(drawn(64, 96, dtype=torch.float16))
    stored = {"w.weight": signed, "w.SCB": largest, "w.weight_format": torch.tensor(0, dtype=torch.uint8)}
    config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    save("bnb-int8", "bitsandbytes", config, stored, w=functional.int8_vectorwise_dequant(signed, largest))


def fp8() -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    def case(name: str, block: list[int] | None, scale_dtype: torch.dtype, method: str = "fp8") -> None:
        rows, columns = 64, 96
        height, width = block or (rows, columns)
        blocks = drawn(rows, columns).reshape(rows // height, height, columns // width, width)
        scale = blocks.abs().amax((1, 3)) / 448
        if scale_dtype == torch.uint8:
            exponent = torch.ceil(torch.log2(scale))
            scale, stored_scale = 2**exponent, (exponent + 127).to(torch.uint8)
        else:
            stored_scale = scale.to(scale_dtype)
        numbers = (blocks / scale[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
        stored_scale = stored_scale if block else stored_scale.reshape(())
        expected = Fp8Dequantize(None)._dequantize_one(numbers, stored_scale, torch.float32)
        config = {"quant_method": method, "weight_block_size": block, "activation_scheme": "dynamic"}
        stored = {"w.weight": numbers, "w.weight_scale_inv": stored_scale}
        save(name, "transformers", config, stored, w=expected)

    case("fp8-block", [16, 32], torch.float32)
    case("fp8-tensor", None, torch.bfloat16)
    case("mxfp8", [1, 32], torch.uint8, "mxfp8")


def mxfp4() -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (3, 10, 4, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(110, 131, (3, 10, 4), generator=generator, dtype=torch.uint8)
    stored = {"experts.up_blocks": blocks, "experts.up_scales": scales}
    expected = {"experts.up": convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)}
    save("mxfp4-experts", "transformers", {"quant_method": "mxfp4"}, stored, **expected)


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    for method in sys.argv[1:]:
        globals()[method.replace("-", "_")]()
