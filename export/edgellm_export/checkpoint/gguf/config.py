"""GGUF metadata to the config.json that Hugging Face has for the same model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgellm.errors import CheckpointError, UnsupportedModelError, nearest
from edgellm_export.checkpoint.gguf.reader import GgufFile
from edgellm_export.checkpoint.gguf.rope import rope_scaling

Config = dict[str, Any]


class Keys:
    """The metadata below an architecture's prefix. Missing required keys are one CheckpointError."""

    def __init__(self, file: GgufFile, arch: str) -> None:
        self.file, self.arch = file, arch
        self._missing: list[str] = []

    def get(self, key: str, default: Any = None) -> Any:
        return plain(self.file.metadata.get(f"{self.arch}.{key}", default))

    def number(self, key: str) -> Any:
        """A required positive number; 1 stands in for a missing one until `check` raises."""
        value = self.get(key)
        if type(value) not in (int, float) or value <= 0:
            self._missing.append(f"{self.arch}.{key}" + (f" (found {value!r})" if value is not None else ""))
            return 1
        return value

    def check(self) -> None:
        if self._missing:
            raise CheckpointError(
                f"{self.file.path} lacks metadata that its architecture needs: {', '.join(self._missing)}; "
                "convert it again with a current llama.cpp"
            )


def plain(value: Any) -> Any:
    """Numpy arrays as lists; float32 values as the decimal that was meant (1e-05, not 9.999999747378752e-06)."""
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    return float(str(np.float32(value))) if isinstance(value, float) else value


def translate_config(file: GgufFile, arch: str) -> Config:
    """config.json for the file, without token ids. Raises UnsupportedModelError or CheckpointError."""
    if arch not in FAMILIES:
        raise UnsupportedModelError(f"{file.path} has architecture {arch!r}; {nearest(arch, FAMILIES)}")
    keys = Keys(file, arch)
    if keys.get("expert_count"):
        raise UnsupportedModelError(f"{file.path} is a mixture of experts, which edgellm does not build")
    config = FAMILIES[arch](keys)
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
    heads, hidden = keys.number("attention.head_count"), keys.number("embedding_length")
    head_dim = keys.get("attention.key_length") or hidden // heads
    config: Config = {
        "architectures": [class_name],
        "model_type": model_type,
        "hidden_size": hidden,
        "num_hidden_layers": keys.number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.get("attention.head_count_kv") or heads,
        "head_dim": head_dim,
        "intermediate_size": keys.number("feed_forward_length"),
        "max_position_embeddings": keys.number("context_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": keys.get("rope.freq_base") or 10000.0,
        "hidden_act": "silu",
        "torch_dtype": "float32",
    }
    rotary = keys.get("rope.dimension_count") or head_dim
    if rotary != head_dim:
        config["partial_rotary_factor"] = rotary / head_dim
    return config | rope_scaling(keys.file, keys.get, config, rotary)


def _has_bias(keys: Keys, *parts: str) -> bool:
    return any(f"blk.0.{part}.bias" in keys.file.tensors for part in parts)


def _llama(keys: Keys) -> Config:
    window = keys.get("attention.sliding_window")
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
    return _decoder(keys, "phi3", "Phi3ForCausalLM") | {
        "sliding_window": keys.get("attention.sliding_window") or None,  # 0 means none
        "original_max_position_embeddings": keys.get("rope.scaling.original_context_length")
        or keys.get("context_length"),
    }


def _gemma(keys: Keys, version: int, pattern: int, wide_layers: int) -> Config:
    """Every `pattern`-th layer attends to all, the others to a window; the rule is llama.cpp's and Hugging Face's."""
    config = _decoder(keys, "gemma2" if version == 2 else "gemma3_text", f"Gemma{version}ForCausalLM")
    config["hidden_activation"] = config.pop("hidden_act").replace("silu", "gelu_pytorch_tanh")
    layers = config["num_hidden_layers"]
    # GGUF does not hold the query scale; llama.cpp too tells the 27B models, which differ, by their layer count.
    by_head = config["hidden_size"] // config["num_attention_heads"]
    stored = keys.get("attention.sliding_window_pattern", pattern)
    slides = stored if isinstance(stored, list) else [bool((layer + 1) % stored) for layer in range(layers)]
    return config | {
        "query_pre_attn_scalar": by_head if layers == wide_layers else config["head_dim"],
        "sliding_window": keys.number("attention.sliding_window"),
        "layer_types": ["sliding_attention" if slide else "full_attention" for slide in slides],
        "attention_bias": False,
    }


def _gemma2(keys: Keys) -> Config:
    return _gemma(keys, 2, pattern=2, wide_layers=46) | {
        "attn_logit_softcapping": keys.get("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": keys.get("final_logit_softcapping", 30.0),
    }


def _gemma3(keys: Keys) -> Config:
    config = _gemma(keys, 3, pattern=6, wide_layers=62)
    return config | {
        "rope_theta": keys.get("rope.freq_base") or 1_000_000.0,
        "rope_local_base_freq": keys.get("rope.freq_base_swa") or 10000.0,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": keys.get("final_logit_softcapping"),
    }


def _gpt2(keys: Keys) -> Config:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": keys.number("embedding_length"),
        "n_layer": keys.number("block_count"),
        "n_head": keys.number("attention.head_count"),
        "n_inner": keys.number("feed_forward_length"),
        "n_positions": keys.number("context_length"),
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
