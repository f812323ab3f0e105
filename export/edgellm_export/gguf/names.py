"""GGUF tensor names to Hugging Face names and layouts, per model type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.checkpoint.tensors import (
    LazyTensor,
    PairsApart,
    RowConcat,
    RowSlice,
    Transposed,
    item_of,
    transposed,
)
from edgellm_export.gguf.reader import GgufFile
from edgellm_export.gguf.tensors import AsRow, Depthwise, HeadsTogether, Multiplied, RowsAfter, Shifted

TENSOR = re.compile(r"(?:(?P<stack>.*)blk\.(?P<layer>\d+)\.)?(?P<part>[\w.]+)\.(?P<kind>weight|bias)")

# Facts about rotary frequencies, which the config carries; older files repeat them per block.
CONFIG_TENSORS = re.compile(r"rope_freqs\.weight|rope_factors_(long|short)\.weight|blk\.\d+\.attn_rot_embd(\.weight)?")
SCALE = ".scale"  # what all numbers of a matrix are multiplied by, beside it
KEYS, VALUES, CORRECTION = "k_b_proj.weight", "v_b_proj.weight", "e_score_correction.bias"  # of DeepSeek
EXPERT = "*"  # in a name: a tensor for each of the matrices in the file's
Names = Mapping[str, str]


def _layers(layer: str, parts: Names, stack: str = "") -> dict[str, str]:
    """Parts of a layer by their GGUF names. `layer` has the number as {}."""
    return {f"{stack}blk.{{}}.{part}": f"{layer}.{name}" for part, name in parts.items()}


def _llama(**parts: str) -> dict[str, str]:
    """What the relatives of Llama have in common, and `parts` of a layer in which one differs."""
    common = {
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
    outer = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    return outer | _layers("model.layers.{}", common | parts)


def _bert(prefix: str, layer: str, parts: Names, head: Names) -> dict[str, str]:
    outer = {
        "token_embd": f"{prefix}embeddings.word_embeddings",
        "position_embd": f"{prefix}embeddings.position_embeddings",
        "token_types": f"{prefix}embeddings.token_type_embeddings",
        "token_embd_norm": f"{prefix}embeddings.LayerNorm",
    }
    return outer | dict(head) | _layers(f"{prefix}{layer}", parts)


def _mixture(block: str = "mlp", router: str = "gate", **parts: str) -> dict[str, str]:
    """A relative with experts. `parts`: what an expert's are called, where it is not as in Llama's MLP."""
    names = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj", **parts}
    stacks = {f"ffn_{part}_exps": f"{block}.experts.{EXPERT}.{name}" for part, name in names.items()}
    shared = {f"ffn_{part}_shexp": f"{block}.shared_expert.{name}" for part, name in names.items()}
    one = {"ffn_gate_inp": f"{block}.{router}", "ffn_gate_inp_shexp": f"{block}.shared_expert_gate"}
    return _llama(**stacks, **shared, **one)


LLAMA = _llama()
GEMMA = _llama(
    post_attention_norm="post_attention_layernorm",
    ffn_norm="pre_feedforward_layernorm",
    post_ffw_norm="post_feedforward_layernorm",
)
GPT2 = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    **_layers(
        "transformer.h.{}",
        {
            "attn_norm": "ln_1",
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "ffn_norm": "ln_2",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
    ),
}
PHI = {
    **_llama(attn_output="self_attn.dense", ffn_up="mlp.fc1", ffn_down="mlp.fc2"),
    "output_norm": "model.final_layernorm",
}
OLMO2 = _llama(post_attention_norm="post_attention_layernorm", post_ffw_norm="post_feedforward_layernorm")
DEEPSEEK = _mixture() | _layers(
    "model.layers.{}",
    {
        "attn_q_a": "self_attn.q_a_proj",
        "attn_q_a_norm": "self_attn.q_a_layernorm",
        "attn_q_b": "self_attn.q_b_proj",
        "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
        "attn_kv_a_norm": "self_attn.kv_a_layernorm",
        "attn_kv_b": "self_attn.kv_b_proj",
        "attn_k_b": "self_attn.k_b_proj",
        "attn_v_b": "self_attn.v_b_proj",
        "exp_probs_b": "mlp.gate.e_score_correction",
        **{f"ffn_{part}_shexp": f"mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down")},
    },
)
BLOOM = {
    "token_embd": "transformer.word_embeddings",
    "token_embd_norm": "transformer.word_embeddings_layernorm",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    **_layers(
        "transformer.h.{}",
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attention.query_key_value",
            "attn_output": "self_attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
    ),
}
GPT_NEOX = {
    "token_embd": "gpt_neox.embed_in",
    "output_norm": "gpt_neox.final_layer_norm",
    "output": "embed_out",
    **_layers(
        "gpt_neox.layers.{}",
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "attention.query_key_value",
            "attn_output": "attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
    ),
}
BERT_LAYER = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
DISTILBERT_LAYER = {
    "attn_q": "attention.q_lin",
    "attn_k": "attention.k_lin",
    "attn_v": "attention.v_lin",
    "attn_output": "attention.out_lin",
    "attn_output_norm": "sa_layer_norm",
    "ffn_up": "ffn.lin1",
    "ffn_down": "ffn.lin2",
    "layer_output_norm": "output_layer_norm",
}
BERT = _bert("bert.", "encoder.layer.{}", BERT_LAYER, {})
ROBERTA = _bert(
    "roberta.", "encoder.layer.{}", BERT_LAYER, {"cls": "classifier.dense", "cls.output": "classifier.out_proj"}
)
DISTILBERT = _bert(
    "distilbert.", "transformer.layer.{}", DISTILBERT_LAYER, {"cls": "pre_classifier", "cls.output": "classifier"}
)


def _t5(gated: bool) -> dict[str, str]:
    sides = {"q": "q", "k": "k", "v": "v", "o": "o", "rel_b": "relative_attention_bias"}
    own = {f"attn_{side}": f"layer.0.SelfAttention.{name}" for side, name in sides.items()}
    own["attn_norm"] = "layer.0.layer_norm"
    cross = {f"cross_attn_{side}": f"layer.1.EncDecAttention.{name}" for side, name in sides.items()}
    cross["cross_attn_norm"] = "layer.1.layer_norm"

    def feed_forward(index: int) -> dict[str, str]:
        dense = f"layer.{index}.DenseReluDense"
        names = {
            "ffn_up": f"{dense}.{'wi_1' if gated else 'wi'}",
            "ffn_gate": f"{dense}.wi_0",
            "ffn_down": f"{dense}.wo",
        }
        return names | {"ffn_norm": f"layer.{index}.layer_norm"}

    return {
        "token_embd": "shared",
        "output": "lm_head",
        "enc.output_norm": "encoder.final_layer_norm",
        "dec.output_norm": "decoder.final_layer_norm",
        **_layers("encoder.block.{}", own | feed_forward(1), "enc."),
        **_layers("decoder.block.{}", own | cross | feed_forward(2), "dec."),
    }


INTERLEAVED = ("arcee", "granite", "granitemoe", "llama", "mistral", "mixtral", "olmo", "smollm3")  # queries and keys
NAMES: Mapping[str, Names] = {
    **dict.fromkeys(("gemma", "granite", "llama", "mistral", "olmo", "qwen2", "qwen3", "smollm3", "stablelm"), LLAMA),
    **dict.fromkeys(("olmo2", "olmo3"), OLMO2),
    "phi": PHI,
    "bloom": BLOOM,
    "gpt_bigcode": GPT2,
    **dict.fromkeys(("arcee", "cohere", "cohere2", "ernie4_5", "nemotron"), LLAMA),
    "exaone4": _llama(post_attention_norm="post_attention_layernorm", post_ffw_norm="post_feedforward_layernorm"),
    "glm4": _llama(
        post_attention_norm="post_self_attn_layernorm", post_ffw_norm="post_mlp_layernorm", ffn_up="mlp.gate_up_proj"
    ),
    "hunyuan_v1_dense": _llama(attn_q_norm="self_attn.query_layernorm", attn_k_norm="self_attn.key_layernorm"),
    "seed_oss": _llama(post_attention_norm="post_attention_layernorm"),
    "lfm2": {
        **_llama(
            attn_norm="operator_norm",
            attn_q_norm="self_attn.q_layernorm",
            attn_k_norm="self_attn.k_layernorm",
            attn_output="self_attn.out_proj",
            ffn_norm="ffn_norm",
            ffn_gate="feed_forward.w1",
            ffn_up="feed_forward.w3",
            ffn_down="feed_forward.w2",
            **{f"shortconv.{part}": f"conv.{part}" for part in ("in_proj", "conv", "out_proj")},
        ),
        **dict.fromkeys(("output_norm", "token_embd_norm"), "model.embedding_norm"),
    },
    "phi3": _llama(attn_qkv="self_attn.qkv_proj", ffn_up="mlp.gate_up_proj"),
    **dict.fromkeys(("gemma2", "gemma3_text"), GEMMA),
    "starcoder2": _llama(ffn_up="mlp.c_fc", ffn_down="mlp.c_proj"),
    **dict.fromkeys(("olmoe", "qwen2_moe", "qwen3_moe"), _mixture()),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), DEEPSEEK),
    "mixtral": _mixture("block_sparse_moe", gate="w1", up="w3", down="w2"),
    "gpt_oss": _mixture(router="router")
    | _layers("model.layers.{}", {"post_attention_norm": "post_attention_layernorm", "attn_sinks": "self_attn.sinks"}),
    "granitemoe": _mixture("block_sparse_moe", "router.layer"),
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
    "bert": BERT,
    **dict.fromkeys(("roberta", "xlm-roberta"), ROBERTA),
    "distilbert": DISTILBERT,
}


def translate_tensors(file: GgufFile, config: Mapping[str, Any]) -> dict[str, LazyTensor]:
    """Tensors by Hugging Face name. What has no counterpart keeps its GGUF name, so that accounting reports it."""
    names = _t5(config["feed_forward_proj"] != "relu") if config["model_type"] == "t5" else NAMES[config["model_type"]]
    scales = {name for name in file.tensors if name.endswith(SCALE) and f"{name[: -len(SCALE)]}.weight" in file.tensors}
    found: dict[str, LazyTensor] = {}
    for name, tensor in file.tensors.items():
        if name not in scales and not CONFIG_TENSORS.fullmatch(name):
            restored = _restore(name, _scaled(file, tensor), config)
            found |= _apart(huggingface_name(name, names), restored)
    return _of_latents(found) if config["model_type"].startswith("deepseek") else found


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


def _apart(name: str, tensor: LazyTensor) -> dict[str, LazyTensor]:
    """The tensor; of a stack, those that it consists of."""
    if EXPERT not in name or len(tensor.shape) < 2:
        return {name: tensor}
    names = [name.replace(EXPERT, str(i)) for i in range(tensor.shape[0])]
    return {each: RowSlice(each, item_of(tensor, i), 0, tensor.shape[1]) for i, each in enumerate(names)}


def huggingface_name(name: str, names: Names) -> str:
    match = TENSOR.fullmatch(name)
    if match is None:
        return name
    place = "" if match["layer"] is None else f"{match['stack']}blk.{{}}."
    found = names.get(f"{place}{match['part']}")
    return name if found is None else f"{found.format(match['layer'])}.{match['kind']}"


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
    """Undo what llama.cpp's conversion did to the values (conversion/llama.py, gemma.py, gpt2.py, gpt_neox.py and
    bert.py)."""
    family = config["model_type"]
    part, _, kind = name.rpartition(".")
    part = part.rpartition(".")[2]
    if family == "qwen2_moe" and part == "ffn_gate_inp_shexp" and len(tensor.shape) == 1:
        return AsRow(tensor)
    if family in INTERLEAVED and part in ("attn_q", "attn_k"):
        head_dim = config["head_dim"]  # llama.cpp rotates neighbours: LlamaModel.permute in conversion/llama.py
        return PairsApart(_of_heads(tensor, head_dim, 2), head_dim, head_dim)
    if (family.startswith("gemma") or family == "nemotron") and part.endswith("norm") and kind == "weight":
        return Shifted(tensor, -1.0)
    if family == "lfm2" and part == "conv" and kind == "weight" and len(tensor.shape) == 2:
        return Depthwise(tensor)
    if family == "gpt2" and kind == "weight" and part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
        return Transposed(tensor.name, tensor)
    if family in ("bloom", "gpt_neox") and part == "attn_qkv":
        head_dim = config["hidden_size"] // config["n_head" if family == "bloom" else "num_attention_heads"]
        return HeadsTogether(_of_heads(tensor, head_dim, 1, parts=3), 3, head_dim)
    if family in ("roberta", "xlm-roberta") and part == "position_embd":
        return RowsAfter(tensor, config["pad_token_id"] + 1)
    return tensor


def _of_heads(tensor: LazyTensor, head_dim: int, multiple: int, parts: int = 1) -> LazyTensor:
    if head_dim % multiple or tensor.shape[0] % (max(head_dim, 1) * parts):
        raise CheckpointError(
            f"{tensor.name} has {tensor.shape[0]} rows, expected a multiple of the head size {head_dim}"
        )
    return tensor
