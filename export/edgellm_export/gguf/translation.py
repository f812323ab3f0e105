"""GGUF tensors to those that Hugging Face has for the same model: names, and layouts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.checkpoint.tensors import (
    ArrayTensor,
    LazyTensor,
    PairsApart,
    RowConcat,
    RowSlice,
    Transposed,
    item_of,
    transposed,
)
from edgellm_export.gguf.names import EXPERT, Names, huggingface_name, names_of
from edgellm_export.gguf.reader import GgufFile
from edgellm_export.gguf.tensors import AsRow, Depthwise, HeadsTogether, Multiplied, Number, RowsAfter, Shifted

# Facts about rotary frequencies, which the config carries; older files repeat them per block.
CONFIG_TENSORS = re.compile(r"rope_freqs\.weight|rope_factors_(long|short)\.weight|blk\.\d+\.attn_rot_embd(\.weight)?")
SCALE = ".scale"  # what all numbers of a matrix are multiplied by, beside it
# The numbers of Apertus' activation, and their shapes.
XIELU: Mapping[str, tuple[int, ...]] = {"alpha_p": (1,), "alpha_n": (1,), "beta": (), "eps": ()}
DENSE = {"dense_2.weight": "2_Dense", "dense_3.weight": "3_Dense"}  # behind a sentence encoder: its directory
KEYS, VALUES, CORRECTION = "k_b_proj.weight", "v_b_proj.weight", "e_score_correction.bias"  # of DeepSeek
ONE_MORE = ("gemma", "gemma2", "gemma3_text", "nemotron")  # whose norms conversion adds 1 to
INTERLEAVED = (  # queries and keys
    "arcee", "granite", "granitemoe", "granitemoehybrid", "llama", "mistral", "mixtral", "olmo", "smollm3",
)  # fmt: skip


def translate_tensors(file: GgufFile, config: Mapping[str, Any]) -> dict[str, LazyTensor]:
    """Tensors by Hugging Face name. What has no counterpart keeps its GGUF name, so that accounting reports it."""
    names = names_of(config)
    found: dict[str, LazyTensor] = _numbers(file, config) if config["model_type"] == "apertus" else {}
    for name, tensor in file.tensors.items():
        if _is_scale(file, name) or _is_elsewhere(name, config):
            continue
        for part, rows in _parts(name, _scaled(file, tensor), names, config).items():
            found |= _apart(huggingface_name(part, names), _restore(part, rows, config))
    if config["model_type"] == "granitemoehybrid":
        return _gates_and_ups(found)
    return _of_latents(found) if config["model_type"].startswith("deepseek") else found


def _is_scale(file: GgufFile, name: str) -> bool:
    return name.endswith(SCALE) and f"{name[: -len(SCALE)]}.weight" in file.tensors


def _is_elsewhere(name: str, config: Mapping[str, Any]) -> bool:
    """Whether it is in the config, or a step behind the model."""
    return bool(CONFIG_TENSORS.fullmatch(name)) or (name in DENSE and bool(config.get("use_bidirectional_attention")))


def dense_steps(file: GgufFile) -> dict[str, LazyTensor]:
    """The matrices of the linear layers behind a sentence encoder, by the directory that each has in a checkpoint."""
    found = {path: file.tensors[name] for name, path in DENSE.items() if name in file.tensors}
    for tensor in found.values():
        if len(tensor.shape) != 2:
            raise CheckpointError(f"{file.path}: {tensor.name} is no matrix; download it again")
    return dict(found)


def _numbers(file: GgufFile, config: Mapping[str, Any]) -> dict[str, LazyTensor]:
    """Those of Apertus' activation, which metadata has for each layer, or once for all."""
    found: dict[str, LazyTensor] = {}
    layers = config["num_hidden_layers"]
    for part, shape in XIELU.items():
        given = file.metadata.get(f"xielu.{part}")
        values = np.atleast_1d(given).tolist() if isinstance(given, float | np.ndarray) else []
        if len(values) not in (1, layers) or not all(isinstance(value, float) and isfinite(value) for value in values):
            raise CheckpointError(
                f"{file.path}: xielu.{part} is not a number for each of {layers} layers; convert it again with a "
                "current llama.cpp"
            )
        for layer in range(layers):
            name, value = f"model.layers.{layer}.mlp.act_fn.{part}", values[layer % len(values)]
            found[name] = ArrayTensor(name, np.full(shape, value, np.float32)) if shape else Number(name, value)
    return found


def _parts(name: str, tensor: LazyTensor, names: Names, config: Mapping[str, Any]) -> dict[str, LazyTensor]:
    """The tensor; of one that has queries, keys and values of a family with one for each, those."""
    stem, _, kind = name.rpartition(".")
    layer, _, part = stem.rpartition(".")
    if part != "attn_qkv" or "blk.{}.attn_qkv" in names or "blk.{}.attn_q" not in names or "head_dim" not in config:
        return {name: tensor}
    query, key = (config[f"num_{side}_heads"] * config["head_dim"] for side in ("attention", "key_value"))
    if tensor.shape[0] != query + 2 * key:
        raise CheckpointError(f"{tensor.name} has {tensor.shape[0]} rows, expected {query} + 2 * {key}")
    ends = {"attn_q": (0, query), "attn_k": (query, query + key), "attn_v": (query + key, query + 2 * key)}
    named = {side: f"{layer}.{side}.{kind}" for side in ends}
    return {named[side]: RowSlice(named[side], tensor, *rows) for side, rows in ends.items()}


def _of_latents(tensors: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
    """With what makes keys and what makes values in one matrix again, head by head: a file has them as stacks of
    matrices, [heads, kv_lora_rank, qk_nope_head_dim] and [heads, v_head_dim, kv_lora_rank]."""
    found = {name.replace(CORRECTION, f"{CORRECTION[:-5]}_bias"): tensor for name, tensor in tensors.items()}
    for name in [name for name in found if name.endswith(KEYS)]:
        stem = name.removesuffix(KEYS)
        keys, values = found[name], found.get(stem + VALUES)
        if values is None or len(keys.shape) != 3 or len(values.shape) != 3 or keys.shape[0] != values.shape[0]:
            continue  # left over, and reported as that
        whole = f"{stem}kv_b_proj.weight"
        heads = [(transposed(whole, item_of(keys, i)), item_of(values, i)) for i in range(keys.shape[0])]
        found[whole] = RowConcat(whole, tuple(part for head in heads for part in head))
        del found[name], found[stem + VALUES]
    return found


def _gates_and_ups(tensors: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
    """With both matrices of a shared MLP in one, as Granite 4 has them."""
    found = dict(tensors)
    for name in [name for name in tensors if name.endswith("shared_mlp.gate_proj.weight")]:
        stem = name.removesuffix("gate_proj.weight")
        up, whole = f"{stem}up_proj.weight", f"{stem}input_linear.weight"
        if up in found:
            found[whole] = RowConcat(whole, (found.pop(name), found.pop(up)))
    return found


def _of_state(name: str, tensor: LazyTensor) -> LazyTensor:
    """Taps as those of a convolution; numbers of heads and of channels as vectors, decays as their logarithms."""
    if name.endswith("ssm_conv1d.weight") and len(tensor.shape) == 2:
        return Depthwise(tensor)
    if not name.endswith(("ssm_a", "ssm_d", "ssm_norm.weight")):
        return tensor
    values = tensor.rows(0, tensor.shape[0]).reshape(-1).astype(np.float32)
    if name.endswith("ssm_a"):
        if not (values < 0).all():
            raise CheckpointError(f"{name} has decays that are not below 0; download it again")
        values = np.log(-values)
    return ArrayTensor(name, values)


def _apart(name: str, tensor: LazyTensor) -> dict[str, LazyTensor]:
    """The tensor; of a stack, those that it consists of."""
    if EXPERT not in name or len(tensor.shape) < 2:
        return {name: tensor}
    names = [name.replace(EXPERT, str(i)) for i in range(tensor.shape[0])]
    return {each: RowSlice(each, item_of(tensor, i), 0, tensor.shape[1]) for i, each in enumerate(names)}


def _scaled(file: GgufFile, tensor: LazyTensor) -> LazyTensor:
    """The tensor times the number beside it, if there is one, as llama.cpp multiplies what NVFP4 matrices give."""
    stem, _, kind = tensor.name.rpartition(".")
    scale = file.tensors.get(f"{stem}{SCALE}") if kind == "weight" else None
    if scale is None:
        return tensor
    if scale.shape != (1,):
        raise UnsupportedModelError(f"{file.path}: {scale.name} has {list(scale.shape)} numbers; edgellm takes one")
    return Multiplied(tensor, float(scale.rows(0, 1)[0]))


def _restore(name: str, tensor: LazyTensor, config: Mapping[str, Any]) -> LazyTensor:
    """Undo what llama.cpp's conversion did to the values (conversion/llama.py, gemma.py, gpt2.py, gpt_neox.py,
    falcon.py and bert.py)."""
    family = config["model_type"]
    part, _, kind = name.rpartition(".")
    part = part.rpartition(".")[2]
    if family == "qwen2_moe" and part == "ffn_gate_inp_shexp" and len(tensor.shape) == 1:
        return AsRow(tensor)
    if family in INTERLEAVED and part in ("attn_q", "attn_k"):
        head_dim = config["head_dim"]  # llama.cpp rotates neighbours: LlamaModel.permute in conversion/llama.py
        return PairsApart(_of_heads(tensor, head_dim, 2), head_dim, head_dim)
    if family in ONE_MORE and part.endswith("norm") and kind == "weight":
        return Shifted(tensor, -1.0)
    if family == "lfm2" and part == "conv" and kind == "weight" and len(tensor.shape) == 2:
        return Depthwise(tensor)
    if family in ("mamba2", "granitemoehybrid") and ".ssm_" in name:
        return _of_state(name, tensor)
    if family == "gpt2" and kind == "weight" and part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
        return Transposed(tensor.name, tensor)
    if family in ("bloom", "gpt_neox") and part == "attn_qkv":
        head_dim = config["hidden_size"] // config["n_head" if family == "bloom" else "num_attention_heads"]
        return HeadsTogether(_of_heads(tensor, head_dim, 1, parts=3), 1, head_dim)
    if family == "falcon" and part == "attn_qkv":
        heads, kv_heads = config["num_attention_heads"], config.get("num_kv_heads", 1)
        queries, head_dim = heads // kv_heads, config["hidden_size"] // heads
        return HeadsTogether(_of_heads(tensor, head_dim, 1, parts=kv_heads * (queries + 2)), queries, head_dim)
    if family in ("roberta", "xlm-roberta") and part == "position_embd":
        return RowsAfter(tensor, config["pad_token_id"] + 1)
    return tensor


def _of_heads(tensor: LazyTensor, head_dim: int, multiple: int, parts: int = 1) -> LazyTensor:
    if head_dim % multiple or tensor.shape[0] % (max(head_dim, 1) * parts):
        raise CheckpointError(
            f"{tensor.name} has {tensor.shape[0]} rows, expected a multiple of the head size {head_dim}"
        )
    return tensor
