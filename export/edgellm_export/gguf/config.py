"""GGUF metadata to the config.json that Hugging Face has for the same model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgellm.errors import CheckpointError, UnsupportedModelError, nearest
from edgellm_export.gguf.reader import GgufFile, Keys
from edgellm_export.gguf.rope import rope_scaling

Config = dict[str, Any]


def translate_config(file: GgufFile, arch: str) -> Config:
    """The config.json that the file stands for, without token ids. Raises UnsupportedModelError or CheckpointError."""
    if arch not in FAMILIES:
        raise UnsupportedModelError(f"{file.path} has architecture {arch!r}; {nearest(arch, FAMILIES)}")
    keys = Keys(file, arch)
    if keys.get("expert_count"):
        raise UnsupportedModelError(f"{file.path} is a mixture of experts, which edgellm does not build")
    config = FAMILIES[arch](keys)
    if "rope_theta" in config:
        config |= rope_scaling(keys, config)
    config["tie_word_embeddings"] = "output.weight" not in file.tensors
    config["vocab_size"] = _vocab_size(file)
    keys.check()
    return config


def _vocab_size(file: GgufFile) -> int:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(f"{file.path} has no token embedding (token_embd.weight); is it a language model?")
    return embedding.shape[0]


def _decoder(keys: Keys, model_type: str, class_name: str) -> Config:
    """What all families with rotary positions and RMS norms have in common."""
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    head_dim = keys.integer("attention.key_length", max(hidden // heads, 1))
    config: Config = {
        "architectures": [class_name],
        "model_type": model_type,
        "hidden_size": hidden,
        "num_hidden_layers": _layers(keys),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "intermediate_size": keys.integer("feed_forward_length"),
        "max_position_embeddings": keys.integer("context_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": keys.number("rope.freq_base", 10000.0),
        "hidden_act": "silu",
        "torch_dtype": "float32",
    }
    rotary = keys.integer("rope.dimension_count", head_dim)
    if rotary != head_dim:
        config["partial_rotary_factor"] = rotary / head_dim
    return config


def _layers(keys: Keys) -> int:
    layers = keys.integer("block_count")
    if layers > len(keys.file.tensors):
        keys.problem(f"{keys.arch}.block_count is {layers}, but there are {len(keys.file.tensors)} tensors")
        return 1
    return layers


def _has_bias(keys: Keys, *parts: str) -> bool:
    return any(f"blk.0.{part}.bias" in keys.file.tensors for part in parts)


def _llama(keys: Keys) -> Config:
    window = keys.get("attention.sliding_window") and keys.integer("attention.sliding_window")
    model_type, class_name = ("mistral", "MistralForCausalLM") if window else ("llama", "LlamaForCausalLM")
    config = _decoder(keys, model_type, class_name)
    if window:
        return config | {"sliding_window": window}
    return config | {
        "attention_bias": _has_bias(keys, "attn_q", "attn_k", "attn_v", "attn_output"),
        "mlp_bias": _has_bias(keys, "ffn_gate", "ffn_up", "ffn_down"),
    }


def _qwen2(keys: Keys) -> Config:
    return _decoder(keys, "qwen2", "Qwen2ForCausalLM") | {"use_sliding_window": False}


def _qwen3(keys: Keys) -> Config:
    config = _decoder(keys, "qwen3", "Qwen3ForCausalLM")
    return config | {"attention_bias": _has_bias(keys, "attn_q"), "use_sliding_window": False}


def _phi3(keys: Keys) -> Config:
    config = _decoder(keys, "phi3", "Phi3ForCausalLM")
    return config | {
        "sliding_window": keys.integer("attention.sliding_window", 0) or None,
        "original_max_position_embeddings": keys.integer(
            "rope.scaling.original_context_length", config["max_position_embeddings"]
        ),
    }


def _gemma(keys: Keys, version: int, pattern: int, wide_layers: int) -> Config:
    """Every `pattern`-th layer attends to all, the others to a window; the rule is llama.cpp's and Hugging Face's."""
    config = _decoder(keys, "gemma2" if version == 2 else "gemma3_text", f"Gemma{version}ForCausalLM")
    config["hidden_activation"] = config.pop("hidden_act").replace("silu", "gelu_pytorch_tanh")
    layers = config["num_hidden_layers"]
    # GGUF does not hold the query scale; llama.cpp too tells the 27B models, which differ, by their layer count.
    by_head = config["hidden_size"] // config["num_attention_heads"]
    stored = keys.get("attention.sliding_window_pattern")
    if isinstance(stored, list):
        slides = [bool(slide) for slide in stored]
    else:
        every = keys.integer("attention.sliding_window_pattern", pattern)
        slides = [bool((layer + 1) % every) for layer in range(layers)]
    return config | {
        "query_pre_attn_scalar": by_head if layers == wide_layers else config["head_dim"],
        "sliding_window": keys.integer("attention.sliding_window"),
        "layer_types": ["sliding_attention" if slide else "full_attention" for slide in slides],
        "attention_bias": False,
    }


def _gemma2(keys: Keys) -> Config:
    return _gemma(keys, 2, pattern=2, wide_layers=46) | {
        "attn_logit_softcapping": keys.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": keys.number("final_logit_softcapping", 30.0),
    }


def _gemma3(keys: Keys) -> Config:
    config = _gemma(keys, 3, pattern=6, wide_layers=62)
    return config | {
        "rope_theta": keys.number("rope.freq_base", 1_000_000.0),
        "rope_local_base_freq": keys.number("rope.freq_base_swa", 10000.0),
        "attn_logit_softcapping": None,
        "final_logit_softcapping": keys.number("final_logit_softcapping", 0.0) or None,
    }


def _gpt2(keys: Keys) -> Config:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": keys.integer("embedding_length"),
        "n_layer": _layers(keys),
        "n_head": keys.integer("attention.head_count"),
        "n_inner": keys.integer("feed_forward_length"),
        "n_positions": keys.integer("context_length"),
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
        "torch_dtype": "float32",
    }


FAMILIES: dict[str, Callable[[Keys], Config]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "phi3": _phi3,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gpt2": _gpt2,
}
