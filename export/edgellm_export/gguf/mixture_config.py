"""GGUF metadata of mixtures of experts to config.json."""

from __future__ import annotations

from edgellm.errors import UnsupportedModelError
from edgellm_export.gguf.decoder_config import decoder, has_bias
from edgellm_export.gguf.keys import Config, Keys


def experts(keys: Keys, count: str) -> Config:
    """`count`: config.json's key of how many there are."""
    return {count: keys.integer("expert_count"), "num_experts_per_tok": keys.integer("expert_used_count")}


def mixtral(keys: Keys) -> Config:
    config = decoder(keys, "mixtral", "MixtralForCausalLM") | experts(keys, "num_local_experts")
    return config | {"sliding_window": keys.integer("attention.sliding_window", 0) or None}


def qwen2_moe(keys: Keys) -> Config:
    config = decoder(keys, "qwen2_moe", "Qwen2MoeForCausalLM") | experts(keys, "num_experts")
    return config | {
        "moe_intermediate_size": keys.integer("expert_feed_forward_length"),
        "shared_expert_intermediate_size": keys.integer("expert_shared_feed_forward_length"),
        "norm_topk_prob": False,
        "qkv_bias": has_bias(keys, "attn_q"),
    }


def qwen3_moe(keys: Keys) -> Config:
    config = decoder(keys, "qwen3_moe", "Qwen3MoeForCausalLM") | experts(keys, "num_experts")
    return config | {
        "moe_intermediate_size": keys.integer("expert_feed_forward_length"),
        "norm_topk_prob": True,
        "attention_bias": has_bias(keys, "attn_q"),
    }


def olmoe(keys: Keys) -> Config:
    return decoder(keys, "olmoe", "OlmoeForCausalLM") | experts(keys, "num_experts") | {"norm_topk_prob": False}


def gpt_oss(keys: Keys) -> Config:
    """The ramp of its yarn does not end at whole channels, which llama.cpp does not know of."""
    config = decoder(keys, "gpt_oss", "GptOssForCausalLM") | experts(keys, "num_local_experts")
    return config | {
        "intermediate_size": keys.integer("expert_feed_forward_length", config["intermediate_size"]),
        "sliding_window": keys.integer("attention.sliding_window"),
        "rope_scaling": None,
    }


def granitemoe(keys: Keys) -> Config:
    scale = keys.number("attention.scale")
    config = decoder(keys, "granitemoe", "GraniteMoeForCausalLM", scale=scale)
    return (
        config
        | experts(keys, "num_local_experts")
        | {
            "attention_multiplier": scale,
            "embedding_multiplier": keys.number("embedding_scale", 1.0),
            "residual_multiplier": keys.number("residual_scale", 1.0),
            "logits_scaling": keys.number("logit_scale", 1.0),
            "attention_bias": has_bias(keys, "attn_q"),
        }
    )


def phimoe(keys: Keys) -> Config:
    """How near an expert must be to the best one files do not hold; all of the family's checkpoints have the same."""
    if "rope_factors_long.weight" in keys.file.tensors:
        raise UnsupportedModelError(
            f"{keys.file.path} stretches its rope by factors, whose magnitudes conversion to GGUF leaves out; export "
            "the Hugging Face checkpoint that it was made from"
        )
    config = decoder(keys, "phimoe", "PhimoeForCausalLM") | experts(keys, "num_local_experts")
    return config | {
        "router_jitter_noise": 0.01,
        "sliding_window": keys.integer("attention.sliding_window", 0) or None,
        "attention_bias": has_bias(keys, "attn_q"),
        "lm_head_bias": "output.bias" in keys.file.tensors,
    }
