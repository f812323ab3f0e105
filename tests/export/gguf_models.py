"""Tiny transformers models of each architecture of GGUF files that a decoder may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto import CONFIG_MAPPING

from edgellm_export.gguf.rope import LLAMA3
from gguf_conversion import convert
from gguf_files import byte_level

VOCAB = 259
SHARED: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 50000.0,
}
GEMMA: dict[str, Any] = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 32, "tie_word_embeddings": True}
GEMMA3N: dict[str, Any] = {
    "head_dim": 16, "sliding_window": 32, "num_hidden_layers": 5, "num_kv_shared_layers": 2, "rope_theta": 1e6,
    "layer_types": ["sliding_attention", "full_attention"] * 2 + ["full_attention"], "laurel_rank": 8,
    "activation_sparsity_pattern": [0.95, 0.0, 0.7, 0.0, 0.0], "hidden_size_per_layer_input": 24,
    "vocab_size_per_layer_input": VOCAB, "final_logit_softcapping": 20.0, "altup_num_inputs": 3, "altup_active_idx": 1,
    "tie_word_embeddings": True,
}  # fmt: skip
EXPERTS = {"num_experts": 3, "num_local_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
LATENT = {
    "num_key_value_heads": 4, "kv_lora_rank": 32, "q_lora_rank": None, "qk_nope_head_dim": 24, "qk_rope_head_dim": 16,
    "v_head_dim": 20, "first_k_dense_replace": 1, "moe_intermediate_size": 40, "n_routed_experts": 3,
    "num_experts_per_tok": 2, "n_shared_experts": 2, "routed_scaling_factor": 1.5,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
YARN_KEYS = {
    "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32
}  # fmt: skip
VERSION_3 = {
    **LATENT, "q_lora_rank": 40, "n_routed_experts": 6, "n_group": 3, "topk_group": 2, "norm_topk_prob": True,
    "rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 0.7},
}  # fmt: skip
LLAMA3_SCALING = {"rope_type": "llama3", "factor": 8.0, **LLAMA3}
PHI3_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
FALCON = {"max_position_embeddings": 2048, "rope_theta": 10000.0, "tie_word_embeddings": True}
GRANITE = {
    "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2, "logits_scaling": 4.0,
}  # fmt: skip
STATES: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 16, "n_groups": 1, "state_size": 16,
    "chunk_size": 16,
}  # fmt: skip
HYBRID: dict[str, Any] = {
    "num_hidden_layers": 3, "layer_types": ["mamba", "attention", "mamba"], "mamba_n_heads": 8, "mamba_d_state": 16,
}  # fmt: skip
# What conversion writes of Granite 4, which it makes Granite of where there is no Mamba.
WITHOUT_MAMBA: dict[str, Any] = {
    "attention.head_count_kv": [2, 2], "expert_count": 0, "expert_used_count": 0,
    "expert_shared_feed_forward_length": 96, "rope.scaling.finetuned": True, "ssm.conv_kernel": 4,
    "ssm.state_size": 16, "ssm.group_count": 1, "ssm.inner_size": 128, "ssm.time_step_rank": 8,
}  # fmt: skip
# Name: Hugging Face model type, its config, further GGUF metadata.
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama", {"attention_bias": True, "head_dim": 32}, {"attention.key_length": 32}),
    "llama tied": ("llama", {"tie_word_embeddings": True, "mlp_bias": True}, {}),
    "llama 3": ("llama", {"rope_scaling": LLAMA3_SCALING, "head_dim": 64}, {"attention.key_length": 64}),
    "mistral": ("mistral", {"sliding_window": 48}, {"attention.sliding_window": 48}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}, {}),
    "qwen3": ("qwen3", {"head_dim": 32}, {"attention.key_length": 32}),
    "phi3": (
        "phi3",
        {"sliding_window": 64, "original_max_position_embeddings": 32, **PHI3_IDS},
        {"attention.sliding_window": 64, "rope.scaling.original_context_length": 32},
    ),
    "phi2": ("phi", {"partial_rotary_factor": 0.5, "num_key_value_heads": 4, "layer_norm_eps": 1e-6, **PHI3_IDS}, {}),
    "smollm3": ("smollm3", {"num_hidden_layers": 4, **PHI3_IDS}, {}),
    "olmo": ("olmo", {"clip_qkv": 2.0}, {"attention.clamp_kqv": 2.0}),
    "olmo2": ("olmo2", {}, {}),
    "olmo3": ("olmo3", {"num_hidden_layers": 4, "sliding_window": 32}, {"attention.sliding_window": 32}),
    "granite": ("granite", GRANITE, {}),
    "stablelm": ("stablelm", {"use_qkv_bias": True, "partial_rotary_factor": 0.25}, {}),
    "stablelm side by side": ("stablelm", {"use_parallel_residual": True}, {"use_parallel_residual": True}),
    "starcoder": ("gpt_bigcode", {"n_inner": 96, "num_key_value_heads": 1}, {}),
    "bloom": ("bloom", {"seq_length": 128}, {}),
    "gemma": ("gemma", {"head_dim": 16, "tie_word_embeddings": True}, {"attention.key_length": 16}),
    "gemma2": (
        "gemma2",
        {**GEMMA, "rope_theta": 10000.0, "attn_logit_softcapping": 40.0, "final_logit_softcapping": 20.0},
        {"attention.sliding_window": 32, "attn_logit_softcapping": 40.0, "final_logit_softcapping": 20.0},
    ),
    "gemma3": (
        "gemma3_text",
        {**GEMMA, "rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {"attention.sliding_window": 32, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
    ),
    "gemma3n": ("gemma3n_text", GEMMA3N, {"final_logit_softcapping": 20.0}),
    "starcoder2": ("starcoder2", {"sliding_window": None, "norm_epsilon": 1e-6}, {}),
    "starcoder2 with a window": ("starcoder2", {"sliding_window": 48}, {"attention.sliding_window": 48}),
    "llama with experts": ("mixtral", EXPERTS, {}),
    "qwen2moe": ("qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 72}, {}),
    "qwen3moe": ("qwen3_moe", {**EXPERTS, "head_dim": 32, "norm_topk_prob": True}, {}),
    "olmoe": ("olmoe", EXPERTS, {}),
    "deepseek2": ("deepseek_v2", LATENT, {}),
    "deepseek2 of version 3": ("deepseek_v3", VERSION_3, YARN_KEYS | {"rope.scaling.yarn_log_multiplier": 0.07}),
    "arcee": ("arcee", {"attention_bias": True, "mlp_bias": True}, {}),
    "command-r": ("cohere", {"logit_scale": 0.25, "layer_norm_eps": 1e-6, **PHI3_IDS}, {"logit_scale": 0.25}),
    "command-r normed": (
        "cohere",
        {"use_qk_norm": True, "layer_norm_eps": 1e-6, **PHI3_IDS},
        {"logit_scale": 0.0625},
    ),
    "cohere2": (
        "cohere2",
        {"sliding_window": 48, "layer_norm_eps": 1e-6, **PHI3_IDS},
        {"logit_scale": 0.0625, "attention.sliding_window": 48},
    ),
    "ernie4_5": ("ernie4_5", {"use_bias": True, "head_dim": 32}, {"attention.key_length": 32}),
    "exaone4": (
        "exaone4",
        {"sliding_window": 48, "layer_types": ["sliding_attention", "full_attention"]},
        {"attention.sliding_window": 48, "attention.sliding_window_pattern": [True, False]},
    ),
    "exaone4 without windows": ("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 2}, {}),
    "glm4": ("glm4", {"head_dim": 32, **PHI3_IDS}, {"rope.dimension_count": 16}),
    "hunyuan": ("hunyuan_v1_dense", {"attention_bias": True, "head_dim": 32}, {}),
    "lfm2": (
        "lfm2",
        {
            **PHI3_IDS,
            "num_hidden_layers": 3,
            "layer_types": ["conv", "full_attention", "conv"],
            "conv_L_cache": 4,
            "block_auto_adjust_ff_dim": False,
            "norm_eps": 1e-6,
            "tie_word_embeddings": True,
        },
        {},
    ),
    "mamba2": ("mamba2", {**STATES, **PHI3_IDS, "use_conv_bias": False}, {}),
    "granitehybrid with mamba": (
        "granitemoehybrid",
        {
            **GRANITE,
            **PHI3_IDS,
            **HYBRID,
            "num_local_experts": 0,
            "tie_word_embeddings": True,
            "position_embedding_type": "rope",
            "shared_intermediate_size": 96,
            "mamba_conv_bias": True,
        },
        {},
    ),
    "nemotron": ("nemotron", {"norm_eps": 1e-6, "mlp_bias": True, **PHI3_IDS}, {"rope.dimension_count": 8}),
    "seed_oss": ("seed_oss", {"attention_out_bias": True, "head_dim": 32}, {}),
    "falcon": ("falcon", FALCON, {}),
    "falcon 40b": (
        "falcon",
        {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 2},
        {},
    ),
    "falcon 2": (
        "falcon",
        {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
        {"rope.freq_base": 10000.0},
    ),
    "mpt": ("mpt", {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 128, "tie_word_embeddings": True}, {}),
    "apertus": ("apertus", {"head_dim": 16, "rope_scaling": LLAMA3_SCALING, **PHI3_IDS}, {}),
    "bitnet": ("bitnet", {"tie_word_embeddings": True, **PHI3_IDS}, {"hidden_activation": "relu2"}),
    "chatglm": (
        "glm",
        {"head_dim": 16, "rope_theta": 10000.0, "attention_bias": True, **PHI3_IDS},
        {"rope.dimension_count": 8},
    ),
    "granite 4": ("granite", GRANITE, WITHOUT_MAMBA),
    "granitehybrid": ("granite", GRANITE, WITHOUT_MAMBA),
    "mistral3": ("mistral", {"sliding_window": None, "head_dim": 32}, {"attention.key_length": 32}),
    "phimoe": ("phimoe", {**EXPERTS, "attention_bias": True, "lm_head_bias": True, **PHI3_IDS}, {}),
    "gptneox": ("gpt_neox", {"rotary_pct": 0.5, "layer_norm_eps": 1e-6, "rope_theta": 10000.0}, {}),
    "gptneox in turn": (
        "gpt_neox",
        {"use_parallel_residual": False, "attention_bias": False, "rope_theta": 10000.0},
        {},
    ),
}
# The architecture, where it does not follow from the model's type.
ARCHITECTURES = {"granitehybrid": "granitehybrid", "mistral3": "mistral3"}


def build(family: str, scale: float = 1.0) -> torch.nn.Module:
    model_type, values, _ = FAMILIES[family]
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type](**{**SHARED, **values}, attn_implementation="eager")  # with Gemma's soft caps
    return seeded(AutoModelForCausalLM.from_config(config).float(), scale)


def seeded(model: torch.nn.Module, scale: float = 1.0) -> torch.nn.Module:
    """`scale`: the size of the numbers of its matrices."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=scale if parameter.dim() > 1 else 1.0)
    return model.eval()


def converted(path: Path, family: str, model: torch.nn.Module) -> Path:
    return convert(path, model, byte_level(), FAMILIES[family][2], arch=ARCHITECTURES.get(family))
