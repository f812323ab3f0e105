"""transformers' models as GGUF files, by the rules of llama.cpp's conversion, which its package gguf has no code of."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import PretrainedConfig

from gguf_files import Array, write_gguf

# model_type: architecture
ARCHITECTURES = {
    "cohere": "command-r",
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), "deepseek2"),
    "glm": "chatglm",
    "modernbert": "modern-bert",
    "qwen2_vl_text": "qwen2vl",
    "qwen2_5_vl_text": "qwen2vl",
    "qwen3_vl_text": "qwen3vl",
    "hunyuan_v1_dense": "hunyuan-dense",
    "mistral": "llama",
    "gemma3_text": "gemma3",
    "gemma3n_text": "gemma3n",
    "gpt_neox": "gptneox",
    "granitemoehybrid": "granitehybrid",
    "gpt_bigcode": "starcoder",
    "olmo3": "olmo2",
    "phi": "phi2",
    "gpt_oss": "gpt-oss",
    "mixtral": "llama",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
    "umt5": "t5",
    **dict.fromkeys(("distilbert", "roberta", "xlm-roberta"), "bert"),
}
# Channels of queries and keys.
INTERLEAVED = ("arcee", "granite", "granitehybrid", "granitemoe", "llama", "mistral3", "olmo", "smollm3")
TEXT_MODELS = ("gemma-embedding", "qwen2vl", "qwen3vl")  # stored without the prefix that conversion knows
BERT_PREFIXES = ("bert.", "distilbert.", "roberta.")
XIELU = ("alpha_p", "alpha_n", "beta", "eps")  # the numbers of Apertus' activation, which metadata holds
STATE = tuple(
    f".{mixer}.{part}"
    for mixer in ("mixer", "mamba")
    for part in ("A_log", "D", "dt_bias", "conv1d.weight", "norm.weight")
)
NOT_CONVERTED = re.compile(
    r"pooler\..*|.*position_ids|cls\..*|lm_head\..*|vocab_.*|(encoder|decoder)\.embed_tokens\..*"
)


# Names that the package's table has not.
FURTHER = {
    "model.layers.{}.self_attn.attn_sub_norm": "blk.{}.attn_sub_norm",
    "model.layers.{}.mlp.ffn_sub_norm": "blk.{}.ffn_sub_norm",
    "transformer.word_embeddings_layernorm": "token_embd_norm",
    "transformer.h.{}.post_attention_layernorm": "blk.{}.ffn_norm",
}


def convert(
    path: Path,
    model: torch.nn.Module,
    tokenizer: Mapping[str, Any],
    more: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Array | None] | None = None,
    arch: str | None = None,
) -> Path:
    """`more`: further metadata, with None for keys to leave out. `tensors`: further ones, with None to leave out.
    `arch`: where it does not follow from the model's type."""
    config = model.config
    arch = arch or ARCHITECTURES.get(config.model_type, config.model_type)
    metadata = {**_metadata(config, arch), **_xielu(model), **tokenizer, **(more or {})}
    given = {key: value for key, value in metadata.items() if value is not None}
    made = converted_tensors(model, arch) | dict(tensors or {})
    return write_gguf(path, arch, given, {name: each for name, each in made.items() if each is not None})


def converted_tensors(model: torch.nn.Module, arch: str) -> dict[str, Array]:
    config = model.config
    layers = max(config.num_hidden_layers, getattr(config, "num_decoder_layers", 0))
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(number, layers)
    encoder = arch == "bert"
    tensors: dict[str, Array] = {}
    for name, value in model.state_dict().items():
        tied = name in ("lm_head.weight", "embed_out.weight") and config.tie_word_embeddings
        if arch in TEXT_MODELS and not name.startswith(("model.", "lm_head.")):
            name = f"model.{name}"
        short = next((name.removeprefix(p) for p in BERT_PREFIXES if name.startswith(p)), name) if encoder else name
        if (
            name.rpartition(".act_fn.")[2] not in XIELU
            and not tied
            and not ((encoder or arch == "t5") and NOT_CONVERTED.fullmatch(short) and short != "lm_head.weight")
        ):
            for part, values in _of_experts(short, value.float().numpy(), config):
                tensors |= _one(part, values, arch, config, names)
    tensors = _stacked(tensors)
    if (getattr(config, "rope_scaling", None) or {}).get("rope_type") == "llama3":
        tensors["rope_freqs.weight"] = llama3_factors(config)
    return tensors


def _of_experts(name: str, tensor: Array, config: PretrainedConfig) -> list[tuple[str, Array]]:
    """The tensor under the name, or both halves of it under the names, by which the package gguf knows it."""
    if config.model_type == "gpt_oss" and ".mlp.experts." in name:
        stem, bias, _ = name.partition("_bias")
        kind, whole = ("bias", tensor) if bias else ("weight", tensor.swapaxes(1, 2))
        if not stem.endswith("gate_up_proj"):
            return [(f"{stem}.{kind}", whole)]
        stem = stem.removesuffix("gate_up_proj")
        return [(f"{stem}{side}_proj.{kind}", whole[:, i::2]) for i, side in enumerate(("gate", "up"))]
    if name.endswith(".e_score_correction_bias"):
        return [(name.replace("_bias", ".bias"), tensor)]
    if name.endswith(".kv_b_proj.weight"):
        sizes = config.qk_nope_head_dim, config.v_head_dim
        keys, values = np.split(tensor.reshape(-1, sum(sizes), tensor.shape[1]), sizes[:1], axis=1)
        stem = name.removesuffix("kv_b_proj.weight")
        return [(f"{stem}k_b_proj.weight", keys.swapaxes(1, 2)), (f"{stem}v_b_proj.weight", values)]
    if name.endswith(".correct_output_scale"):
        return [(f"{name}.weight", tensor)]
    if name.endswith(".sinks"):
        return [(f"{name}.weight", tensor)]
    if ".shared_mlp." in name:
        stem, end = name.split(".shared_mlp.")[0], "_shexp" if config.num_local_experts else ""
        layer = f"blk.{stem.rpartition('.')[2]}.ffn"
        if "output_linear" in name:
            return [(f"{layer}_down{end}.weight", tensor)]
        halves = np.split(tensor, 2)
        return [(f"{layer}_{side}{end}.weight", half) for side, half in zip(("gate", "up"), halves, strict=True)]
    if name.endswith(STATE):
        return [_of_state(name, tensor, config)]
    if ".input_linear." in name:
        halves = np.split(tensor, 2, axis=1)
        stem = name.replace("block_sparse_moe.input_linear", "mlp.experts")
        sides = zip(("gate", "up"), halves, strict=True)
        return [(stem.replace("weight", f"{side}_proj.weight"), half) for side, half in sides]
    name = name.replace("block_sparse_moe.output_linear", "mlp.experts.down_proj")
    name = re.sub(r"^model\.(layers\.\d+\.)block_sparse_moe\.experts\.", r"\1feed_forward.experts.", name)
    return [(name, tensor[0] if ".shared_expert_gate." in name else tensor)]


def _of_state(name: str, tensor: Array, config: PretrainedConfig) -> tuple[str, Array]:
    """Of a state space."""
    layer, part = f"blk.{name.split('.layers.')[1].split('.')[0]}", name.split(".", 4)[4]
    if part == "A_log":
        return f"{layer}.ssm_a", -np.exp(tensor)[:, None]
    if part == "D":
        return f"{layer}.ssm_d", tensor[:, None]
    if part == "dt_bias":
        return f"{layer}.ssm_dt.bias", tensor
    if part == "conv1d.weight":
        return f"{layer}.ssm_conv1d.weight", tensor[:, 0]
    groups = config.n_groups if config.model_type == "mamba2" else config.mamba_n_groups
    return f"{layer}.ssm_norm.weight", tensor.reshape(groups, -1)


def _stacked(tensors: dict[str, Array]) -> dict[str, Array]:
    """With one tensor in the place of those of a layer's experts, whose names end with their number."""
    found: dict[str, Array] = {}
    stacks: dict[str, list[Array]] = {}
    for name, tensor in tensors.items():
        stem, _, expert = name.partition("#")
        if expert:
            stacks.setdefault(stem, []).append(tensor)
        else:
            found[name] = tensor
    return found | {name: np.stack(each) for name, each in stacks.items()}


def _one(name: str, tensor: Array, arch: str, config: PretrainedConfig, names: gguf.TensorNameMap) -> dict[str, Array]:
    if name.startswith("blk."):
        return {name: np.ascontiguousarray(tensor)}
    stem, suffix = name.rsplit(".", 1)
    part = stem.rsplit(".", 1)[-1]
    shape = tensor.shape
    if arch in INTERLEAVED and part in ("q_proj", "k_proj"):
        heads = config.num_attention_heads if part == "q_proj" else config.num_key_value_heads
        tensor = tensor.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
    if (arch.startswith("gemma") or arch == "nemotron") and arch != "gemma3n" and name.endswith("norm.weight"):
        tensor = tensor + 1
    if arch == "gpt2" and part in ("c_attn", "c_proj", "c_fc") and suffix == "weight":
        tensor = tensor.T
    if arch == "lfm2" and part == "conv" and suffix == "weight":
        tensor = tensor[:, 0]
    if arch == "falcon" and part == "query_key_value":
        kv_heads = config.num_kv_heads if config.new_decoder_architecture else 1
        head_dim = config.hidden_size // config.num_attention_heads
        groups = tensor.reshape(kv_heads, -1, head_dim, shape[1])
        parts = (groups[:, :-2], groups[:, -2:-1], groups[:, -1:])
        tensor = np.concatenate([each.reshape(-1, shape[1]) for each in parts])
    elif part == "query_key_value":
        heads = config.num_attention_heads
        tensor = tensor.reshape(heads, 3, shape[0] // heads // 3, *shape[1:]).swapaxes(0, 1).reshape(shape)
    if config.model_type in ("roberta", "xlm-roberta") and part == "position_embeddings":
        tensor = tensor[config.pad_token_id + 1 :]
    if (stack := re.fullmatch(r"(model\.altup_(?:unembed_)?projections)\.(\d+)", stem)) is not None:
        return {f"{names.get_name(stack[1])}.weight#{stack[2]}": tensor}
    expert = re.search(r"(?<=\.experts\.)\d+\.", stem)
    found = names.get_name(stem if expert is None else stem.replace(f"experts.{expert[0]}", "experts."))
    found = found or FURTHER.get(re.sub(r"\d+", "{}", stem), "").format(*re.findall(r"\d+", stem))
    assert found, name
    number = "" if expert is None else f"#{expert[0]}"
    return {f"{found}.{suffix}{number}": np.ascontiguousarray(tensor)}


def _xielu(model: torch.nn.Module) -> dict[str, list[float]]:
    state = model.state_dict()
    values = {part: [float(v) for name, v in state.items() if name.endswith(f".act_fn.{part}")] for part in XIELU}
    return {f"xielu.{part}": each for part, each in values.items() if each}


def llama3_factors(config: PretrainedConfig) -> Array:
    factors = []
    for index in range(0, config.head_dim, 2):
        wavelength = 2 * math.pi * config.rope_theta ** (index / config.head_dim)
        if wavelength < 8192 / 4:
            factors.append(1.0)
        elif wavelength > 8192:
            factors.append(config.rope_scaling["factor"])
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            factors.append(1 / ((1 - smooth) / config.rope_scaling["factor"] + smooth))
    return np.array(factors, np.float32)


def _metadata(config: PretrainedConfig, arch: str) -> dict[str, Any]:
    makers = {
        "deepseek2": _deepseek, "gpt2": _gpt2, "starcoder": _starcoder, "bloom": _bloom, "gptneox": _gpt_neox,
        "gemma3n": _gemma3n, "bert": _bert, "t5": _t5, "lfm2": _lfm2,
        "falcon": _falcon, "mpt": _mpt, "modern-bert": _modernbert,
    }  # fmt: skip
    if config.model_type in ("mamba2", "granitemoehybrid"):
        return (_mamba2 if arch == "mamba2" else _granite_hybrid)(config)
    return makers.get(arch, _decoder)(config)


def _mamba2(config: PretrainedConfig) -> dict[str, Any]:
    return {
        "block_count": config.num_hidden_layers,
        "context_length": 1 << 20,
        "embedding_length": config.hidden_size,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "attention.layer_norm_rms_epsilon": config.layer_norm_epsilon,
        "ssm.conv_kernel": config.conv_kernel,
        "ssm.inner_size": config.num_heads * config.head_dim,
        "ssm.state_size": config.state_size,
        "ssm.time_step_rank": config.num_heads,
        "ssm.group_count": config.n_groups,
    }


def _granite_hybrid(config: PretrainedConfig) -> dict[str, Any]:
    rotates = config.position_embedding_type == "rope"
    shared = {"expert_shared_feed_forward_length": config.shared_intermediate_size} if config.num_local_experts else {}
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings if rotates else 1 << 20,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size
        if config.num_local_experts
        else config.shared_intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": [
            config.num_key_value_heads if kind == "attention" else 0 for kind in config.layer_types
        ],
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": float(config.rope_theta),
        "rope.scaling.finetuned": rotates,
        **_experts(config),
        **shared,
        "ssm.conv_kernel": config.mamba_d_conv,
        "ssm.inner_size": config.mamba_expand * config.hidden_size,
        "ssm.state_size": config.mamba_d_state,
        "ssm.time_step_rank": config.mamba_n_heads,
        "ssm.group_count": config.mamba_n_groups,
    }


def _decoder(config: PretrainedConfig) -> dict[str, Any]:
    metadata = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "rope.freq_base": float(config.rope_theta),
    }
    if config.model_type in ("phi", "stablelm"):
        metadata["rope.dimension_count"] = int(
            config.partial_rotary_factor * (config.hidden_size // config.num_attention_heads)
        )
    for name in ("norm_epsilon", "norm_eps", "layer_norm_eps"):
        if hasattr(config, name):
            return metadata | {"attention.layer_norm_epsilon": getattr(config, name)}
    if config.model_type == "olmo":
        return metadata | {"attention.layer_norm_epsilon": 1e-5}
    if config.model_type == "granite":
        metadata |= {
            "attention.scale": config.attention_multiplier,
            "embedding_scale": config.embedding_multiplier,
            "residual_scale": config.residual_multiplier,
            "logit_scale": config.logits_scaling,
        }
    metadata["attention.layer_norm_rms_epsilon"] = config.rms_norm_eps
    if getattr(config, "head_dim", None):
        metadata |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    metadata |= _experts(config)
    if config.model_type in ("llama", "mistral"):
        metadata["rope.dimension_count"] = config.head_dim
    return metadata


def _gemma3n(config: PretrainedConfig) -> dict[str, Any]:
    normal, sizes = torch.distributions.normal.Normal(0, 1), set(config.intermediate_size)
    assert len(sizes) == 1
    return _decoder(config) | {
        "feed_forward_length": sizes.pop(),
        "altup.active_idx": config.altup_active_idx,
        "altup.num_inputs": config.altup_num_inputs,
        "embedding_length_per_layer_input": config.hidden_size_per_layer_input,
        "attention.shared_kv_layers": config.num_kv_shared_layers,
        "attention.sliding_window": config.sliding_window,
        "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in config.layer_types],
        "activation_sparsity_scale": [normal.icdf(torch.tensor(s)).item() for s in config.activation_sparsity_pattern],
    }


def _experts(config: PretrainedConfig) -> dict[str, Any]:
    """Keys by those of config.json, as far as there are some."""
    keys = {
        "num_experts": "expert_count",
        "num_local_experts": "expert_count",
        "num_experts_per_tok": "expert_used_count",
        "moe_intermediate_size": "expert_feed_forward_length",
        "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
        "attention_multiplier": "attention.scale",
        "embedding_multiplier": "embedding_scale",
        "residual_multiplier": "residual_scale",
        "logits_scaling": "logit_scale",
    }
    known = type(config)().to_dict()
    if config.model_type == "gpt_oss":
        keys["intermediate_size"] = "expert_feed_forward_length"
    return {key: getattr(config, name) for name, key in keys.items() if name in known}


def _deepseek(config: PretrainedConfig) -> dict[str, Any]:
    rank, rotated = config.kv_lora_rank, config.qk_rope_head_dim
    version3 = config.model_type == "deepseek_v3"
    metadata = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": 1,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.kv_lora_rank": rank,
        "attention.key_length": rank + rotated,
        "attention.value_length": rank,
        "attention.key_length_mla": config.qk_nope_head_dim + rotated,
        "attention.value_length_mla": config.v_head_dim,
        "rope.dimension_count": rotated,
        "rope.freq_base": float(config.rope_theta),
        "leading_dense_block_count": config.first_k_dense_replace,
        "expert_count": config.n_routed_experts,
        "expert_used_count": config.num_experts_per_tok,
        "expert_shared_count": config.n_shared_experts,
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_weights_scale": float(config.routed_scaling_factor),
        "expert_gating_func": 2 if version3 else 1,
    }
    if config.q_lora_rank is not None:
        metadata["attention.q_lora_rank"] = config.q_lora_rank
    if config.norm_topk_prob:
        metadata["expert_weights_norm"] = True
    if config.n_group is not None:
        metadata |= {"expert_group_count": config.n_group, "expert_group_used_count": config.topk_group}
    return metadata


def _gpt2(config: PretrainedConfig) -> dict[str, Any]:
    return {
        "block_count": config.n_layer,
        "context_length": config.n_positions,
        "embedding_length": config.n_embd,
        "feed_forward_length": config.n_inner or 4 * config.n_embd,
        "attention.head_count": config.n_head,
        "attention.layer_norm_epsilon": config.layer_norm_epsilon,
    }


def _starcoder(config: PretrainedConfig) -> dict[str, Any]:
    return _gpt2(config) | {"attention.head_count_kv": 1}


def _lfm2(config: PretrainedConfig) -> dict[str, Any]:
    counts = [config.num_key_value_heads if kind == "full_attention" else 0 for kind in config.layer_types]
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": counts,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.freq_base": float(config.rope_theta),
        "shortconv.l_cache": config.conv_L_cache,
        "vocab_size": config.vocab_size,
    }


def _bloom(config: PretrainedConfig) -> dict[str, Any]:
    return {
        "block_count": config.n_layer,
        "context_length": config.seq_length,
        "embedding_length": config.hidden_size,
        "feed_forward_length": 4 * config.hidden_size,
        "attention.head_count": config.n_head,
        "attention.layer_norm_epsilon": config.layer_norm_epsilon,
    }


def _falcon(config: PretrainedConfig) -> dict[str, Any]:
    return {
        "block_count": config.num_hidden_layers,
        "context_length": 2048,
        "tensor_data_layout": "jploski",
        "embedding_length": config.hidden_size,
        "feed_forward_length": 4 * config.hidden_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_kv_heads if config.new_decoder_architecture else 1,
        "attention.layer_norm_epsilon": config.layer_norm_epsilon,
    }


def _mpt(config: PretrainedConfig) -> dict[str, Any]:
    return {
        "block_count": config.n_layers,
        "context_length": config.max_seq_len,
        "embedding_length": config.d_model,
        "feed_forward_length": 4 * config.d_model,
        "attention.head_count": config.n_heads,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.max_alibi_bias": float(config.attn_config.alibi_bias_max),
    }


def _modernbert(config: PretrainedConfig) -> dict[str, Any]:
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.layer_norm_epsilon": config.norm_eps,
        "attention.causal": False,
        "attention.sliding_window": config.local_attention,
        "attention.sliding_window_pattern": config.global_attn_every_n_layers,
        "rope.freq_base": config.global_rope_theta,
        "rope.freq_base_swa": config.local_rope_theta,
        "rope.scaling.type": "none",
    }


def _gpt_neox(config: PretrainedConfig) -> dict[str, Any]:
    head_dim = config.hidden_size // config.num_attention_heads
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.layer_norm_epsilon": config.layer_norm_eps,
        "rope.dimension_count": int(config.rotary_pct * head_dim),
        "use_parallel_residual": config.use_parallel_residual,
    }


def _bert(config: PretrainedConfig) -> dict[str, Any]:
    offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta") else 0
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings - offset,
        "embedding_length": config.hidden_size,
        "feed_forward_length": getattr(config, "intermediate_size", None) or config.hidden_dim,
        "attention.head_count": config.num_attention_heads,
        "attention.layer_norm_epsilon": getattr(config, "layer_norm_eps", 1e-12),
        "attention.causal": False,
        "tokenizer.ggml.token_type_count": getattr(config, "type_vocab_size", 1),
    }


def _t5(config: PretrainedConfig) -> dict[str, Any]:
    return {
        "context_length": 512,
        "embedding_length": config.d_model,
        "feed_forward_length": config.d_ff,
        "block_count": config.num_layers,
        "decoder_block_count": config.num_decoder_layers,
        "attention.head_count": config.num_heads,
        "attention.key_length": config.d_kv,
        "attention.value_length": config.d_kv,
        "attention.layer_norm_epsilon": config.layer_norm_epsilon,
        "attention.relative_buckets_count": config.relative_attention_num_buckets,
        "attention.layer_norm_rms_epsilon": config.layer_norm_epsilon,
        "decoder_start_token_id": config.decoder_start_token_id,
    }
