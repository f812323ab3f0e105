"""GGUF metadata of DeepSeek's models, whose cache has latents, to config.json."""

from __future__ import annotations

from edgellm_export.gguf.decoder_config import RMS_EPS, causal, has_bias
from edgellm_export.gguf.keys import Config, Keys, layer_count
from edgellm_export.gguf.mixture_config import experts

SOFTMAX, SIGMOID = 1, 2  # of the scores of experts


def deepseek(keys: Keys) -> Config:
    """DeepSeek-V2, or V3 where experts are chosen by sigmoids. Older files have the heads' own sizes in the place of
    those of the one that is cached."""
    corrected = keys.get("expert_gating_func") == SIGMOID
    number, letters = ("3", "deepseek_v3") if corrected else ("2", "deepseek_v2")
    keys.must_be("expert_gating_func", 0, SOFTMAX, SIGMOID)
    heads, rank = keys.integer("attention.head_count"), keys.integer("attention.kv_lora_rank")
    rotated = keys.integer("rope.dimension_count")
    key, value = (
        keys.integer(f"attention.{side}_length_mla", keys.integer(f"attention.{side}_length"))
        for side in ("key", "value")
    )
    keys.must_be("attention.head_count_kv", 1, heads)
    keys.must_be("attention.key_length", key, rank + rotated)
    keys.must_be("attention.value_length", value, rank)
    keys.must_be("attention.scale", 0, key**-0.5)
    causal(keys)
    groups = keys.integer("expert_group_count", 1)
    config: Config = {
        "architectures": [f"DeepseekV{number}ForCausalLM"],
        "model_type": letters,
        "hidden_size": keys.integer("embedding_length"),
        "num_hidden_layers": layer_count(keys),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": rotated,
        "intermediate_size": keys.integer("feed_forward_length"),
        "max_position_embeddings": keys.integer("context_length"),
        "rms_norm_eps": keys.number(RMS_EPS),
        "rope_theta": keys.number("rope.freq_base", 10000.0),
        "hidden_act": "silu",
        "torch_dtype": "float32",
        "kv_lora_rank": rank,
        "q_lora_rank": keys.integer("attention.q_lora_rank", 0) or None,
        "qk_nope_head_dim": max(key - rotated, 1),
        "qk_rope_head_dim": rotated,
        "v_head_dim": value,
        "first_k_dense_replace": keys.integer("leading_dense_block_count", 0),
        "moe_intermediate_size": keys.integer("expert_feed_forward_length"),
        "n_shared_experts": keys.integer("expert_shared_count", 0) or None,
        "routed_scaling_factor": keys.number("expert_weights_scale", 1.0),
        "norm_topk_prob": bool(keys.get("expert_weights_norm")),
        "n_group": groups,
        "topk_group": keys.integer("expert_group_used_count", 1),
        "rope_interleave": True,
        "attention_bias": has_bias(keys, "attn_kv_a_mqa", "attn_output"),
    }
    if not corrected:
        config["topk_method"] = "greedy" if groups == 1 else "group_limited_greedy"
    return config | experts(keys, "n_routed_experts")


def magnitudes(keys: Keys) -> Config:
    """Of DeepSeek's yarn: a tenth is in the file, for tables and queries alike."""
    weight = round(10 * keys.number("rope.scaling.yarn_log_multiplier", 0.0), 6)  # which was a decimal
    return {"mscale": weight, "mscale_all_dim": weight} if weight else {}
