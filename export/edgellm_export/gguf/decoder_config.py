"""What the metadata of decoders have in common, as config.json has it."""

from __future__ import annotations

from edgellm.errors import UnsupportedModelError
from edgellm_export.gguf.keys import Config, Keys, layer_count

RMS_EPS, EPS = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
RANK = 4  # the pooling that gives a number for each text, from a head
BOTH_WAYS = ("gemma-embedding",)  # whose tokens see those behind them, too


def decoder(
    keys: Keys, model_type: str, class_name: str, norm: str = RMS_EPS, scale: float | None = None,
    kv_heads: int | None = None,
) -> Config:  # fmt: skip
    """What all families with rotary positions, and heads of any size, have in common. `scale`: of attention, where it
    does not follow from the size of a head. `kv_heads`: where the file says them layer by layer."""
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    head_dim = keys.integer("attention.key_length", max(hidden // heads, 1))
    config: Config = {
        "architectures": [class_name],
        "model_type": model_type,
        "hidden_size": hidden,
        "num_hidden_layers": layer_count(keys),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads or keys.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "intermediate_size": keys.integer("feed_forward_length"),
        "max_position_embeddings": keys.integer("context_length"),
        "rms_norm_eps": keys.number(norm),
        "rope_theta": keys.number("rope.freq_base", 10000.0),
        "hidden_act": "silu",
        "torch_dtype": "float32",
    }
    rotary = keys.integer("rope.dimension_count", head_dim)
    if rotary != head_dim:
        config["partial_rotary_factor"] = rotary / head_dim
    keys.must_be("attention.value_length", 0, head_dim)
    keys.must_be("attention.scale", 0, scale or head_dim**-0.5)
    if keys.arch not in BOTH_WAYS:
        causal(keys)
    return config


def causal(keys: Keys) -> None:
    """Refuse what makes another model of a decoder's tensors."""
    keys.must_be("attention.causal", True)
    if keys.get("pooling_type") == RANK:
        raise UnsupportedModelError(
            f"{keys.file.path} ranks texts ({keys.arch}.pooling_type is {RANK}) by a head that conversion has cut out "
            "of the model's; export the Hugging Face checkpoint that it was made from"
        )


def has_bias(keys: Keys, *parts: str) -> bool:
    return any(f"blk.0.{part}.bias" in keys.file.tensors for part in parts)


def biases(keys: Keys) -> Config:
    return {
        "attention_bias": has_bias(keys, "attn_q", "attn_k", "attn_v", "attn_output"),
        "mlp_bias": has_bias(keys, "ffn_gate", "ffn_up", "ffn_down"),
    }


def attention_bias(keys: Keys) -> Config:
    return {"attention_bias": has_bias(keys, "attn_q", "attn_k", "attn_v", "attn_output")}


def layer_kinds(keys: Keys, layers: int, pattern: int) -> list[str]:
    """Each layer's kind where there are windows: all but every `pattern`-th have one, if the file says nothing else."""
    stored = keys.get("attention.sliding_window_pattern")
    if isinstance(stored, list):
        slides = [bool(slide) for slide in stored]
    else:
        every = keys.integer("attention.sliding_window_pattern", pattern)
        slides = [bool((layer + 1) % every) for layer in range(layers)]
    return ["sliding_attention" if slide else "full_attention" for slide in slides]
