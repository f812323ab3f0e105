"""One small matrix in each form that checkpoints hold quantized ones in."""

from __future__ import annotations

import json
from typing import Any

from fuzz.seeds.writing import write_json

ONE = [0, 60]  # 1.0 in float16
ONES = [0, 0, 128, 63]  # in float32


def write_quantized() -> None:
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
    packed = {"w.qweight": ["I32", [8, 8], None], "w.qzeros": ["I32", [2, 1], None], "w.scales": ["F16", [2, 8], ONE]}
    index = {"w.g_idx": ["I32", [64], [0, 0, 0, 0]], "w.bias": ["F16", [8], [0]]}
    _write("gptq", gptq | {"checkpoint_format": "gptq"}, packed | index)
    _write("gptq-dynamic", gptq | {"dynamic": {"+:w": {"bits": 4}}, "checkpoint_format": "gptq_v2"}, packed)
    awq = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
    packed = {"w.qweight": ["I32", [64, 1], None], "w.qzeros": ["I32", [2, 1], None], "w.scales": ["F16", [2, 8], ONE]}
    _write("awq", awq, packed)
    scales = {"w.weight_scale": ["F16", [8, 2], ONE]}
    words = {"w.weight_packed": ["I32", [8, 8], None], "w.weight_shape": ["I64", [2], [8, *[0] * 7, 64, *[0] * 7]]}
    group = {"num_bits": 4, "strategy": "group", "group_size": 32}
    zeros = {"w.weight_zero_point": ["I32", [1, 2], None], "w.weight_g_idx": ["I32", [64], [0, 0, 0, 0]]}
    _write("ct-int4", _ct("pack-quantized", **group), words | scales | zeros)
    _write("ct-int8", _ct("int-quantized", num_bits=8, strategy="channel"),
           {"w.weight": ["I8", [8, 64], None], "w.weight_scale": ["F32", [8, 1], ONES],
            "w.weight_zero_point": ["I8", [8, 1], None], "w.input_scale": ["F32", [1], ONES]})  # fmt: skip
    blocks = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [4, 32]}
    _write("ct-fp8", _ct("float-quantized", **blocks),
           {"w.weight": ["F8_E4M3", [8, 64], None], "w.weight_scale": ["BF16", [2, 2], [128, 63]]})  # fmt: skip
    float4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
    _write("ct-nvfp4", _ct("nvfp4-pack-quantized", **float4),
           {"w.weight_packed": ["U8", [8, 32], None], "w.weight_scale": ["F8_E4M3", [8, 4], None],
            "w.weight_global_scale": ["F32", [1], ONES]})  # fmt: skip
    fp8 = {"quant_method": "fp8", "weight_block_size": [4, 32], "activation_scheme": "dynamic"}
    _write("fp8", fp8, {"w.weight": ["F8_E4M3", [8, 64], None], "w.weight_scale_inv": ["F32", [2, 2], ONES]})
    experts = {"w_blocks": ["U8", [2, 4, 2, 16], None], "w_scales": ["U8", [2, 4, 2], None]}
    _write("mxfp4", {"quant_method": "mxfp4"}, experts)
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [8, 64], "nested_blocksize": 256,
             "nested_offset": 0.1}  # fmt: skip
    text = json.dumps(state)
    nf4 = {
        "w.weight": ["U8", [256, 1], None],
        "w.weight.absmax": ["U8", [8], None],
        "w.weight.quant_map": ["F32", [16], ONES],
        "w.weight.nested_absmax": ["F32", [1], ONES],
        "w.weight.nested_quant_map": ["F32", [256], ONES],
        "w.weight.quant_state.bitsandbytes__nf4": ["U8", [len(text)], text],
    }
    _write("nf4", {"quant_method": "bitsandbytes", "load_in_4bit": True}, nf4)
    int8 = {"w.weight": ["I8", [8, 64], None], "w.SCB": ["F32", [8], ONES], "w.weight_format": ["U8", [], [0]]}
    _write("int8", {"quant_method": "bitsandbytes", "load_in_8bit": True}, int8)


def _ct(form: str, **weights: Any) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}, "group_1": {"targets": ["re:.*x$"]}}
    settings = {"format": form, "quantization_status": "compressed", "ignore": ["lm_head"]}
    return {"quant_method": "compressed-tensors", "config_groups": groups, **settings}


def _write(name: str, config: dict[str, Any], tensors: dict[str, list[Any]]) -> None:
    write_json("quantized", name, {"config": config, "tensors": tensors})
