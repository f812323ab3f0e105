"""GGUF tensor names to Hugging Face names and layouts, per architecture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgellm.errors import CheckpointError
from edgellm_export.checkpoint.tensors import LazyTensor, Transposed
from edgellm_export.gguf.reader import GgufFile
from edgellm_export.gguf.tensors import InterleavedRows, Shifted

BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
OUTER = re.compile(r"(\w+)\.(weight|bias)")

# Facts about rotary frequencies, which the config carries; older files repeat them per block.
CONFIG_TENSORS = re.compile(r"rope_freqs\.weight|rope_factors_(long|short)\.weight|blk\.\d+\.attn_rot_embd(\.weight)?")

LLAMA = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
PHI3 = LLAMA | {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
GEMMA = LLAMA | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
GPT2 = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
NAMES = {"llama": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA, "phi3": PHI3, "gemma2": GEMMA, "gemma3": GEMMA, "gpt2": GPT2}
LAYERS = {"gpt2": "transformer.h"}


def translate_tensors(file: GgufFile, arch: str, config: Mapping[str, Any]) -> dict[str, LazyTensor]:
    """Tensors by Hugging Face name. What has no counterpart keeps its GGUF name, so that accounting reports it."""
    return {
        huggingface_name(name, arch): _restore(name, tensor, arch, config)
        for name, tensor in file.tensors.items()
        if not CONFIG_TENSORS.fullmatch(name)
    }


def huggingface_name(name: str, arch: str) -> str:
    names = NAMES[arch]
    block, outer = BLOCK.fullmatch(name), OUTER.fullmatch(name)
    if block and block[2] in names:
        return f"{LAYERS.get(arch, 'model.layers')}.{block[1]}.{names[block[2]]}.{block[3]}"
    if outer and outer[1] in names:
        return f"{names[outer[1]]}.{outer[2]}"
    return name


def _restore(name: str, tensor: LazyTensor, arch: str, config: Mapping[str, Any]) -> LazyTensor:
    """Undo what llama.cpp's conversion did to the values (conversion/llama.py, gemma.py, gpt2.py)."""
    part, _, kind = name.rpartition(".")
    part = part.rpartition(".")[2]
    if arch == "llama" and part in ("attn_q", "attn_k"):
        head_dim = config["head_dim"]
        if head_dim % 2 or tensor.shape[0] % head_dim:
            raise CheckpointError(f"{name} has {tensor.shape[0]} rows, expected a multiple of the head size {head_dim}")
        return InterleavedRows(tensor, head_dim)
    if arch.startswith("gemma") and part.endswith("norm"):
        return Shifted(tensor, -1.0)
    if arch == "gpt2" and kind == "weight" and part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
        return Transposed(tensor.name, tensor)
    return tensor
