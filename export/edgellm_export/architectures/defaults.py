"""What transformers takes where config.json is silent, and under which other names its keys go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Keys whose default is neither null nor false. A key that is null in config.json is null, not its default.
_LLAMA = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}  # fmt: skip
_MISTRAL = {
    **_LLAMA, "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072,
    "sliding_window": 4096,
}  # fmt: skip
_QWEN2 = {
    **_LLAMA, "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32,
    "max_position_embeddings": 32768, "sliding_window": 4096, "max_window_layers": 28,
}  # fmt: skip
_GEMMA3 = {
    "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256, "sliding_window": 4096, "sliding_window_pattern": 6,
    "rope_theta": 1e6, "rope_local_base_freq": 10000.0,
}  # fmt: skip
_GEMMA2 = {
    **_GEMMA3, "vocab_size": 256000, "max_position_embeddings": 8192, "rope_theta": 10000.0,
    "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
}  # fmt: skip
_BART = {
    "vocab_size": 50265, "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096, "encoder_attention_heads": 16, "decoder_attention_heads": 16,
    "activation_function": "gelu", "max_position_embeddings": 1024, "is_encoder_decoder": True,
    "tie_word_embeddings": True,
}  # fmt: skip
_T5 = {
    "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8,
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu", "is_encoder_decoder": True,
}  # fmt: skip
_MT5 = {
    **_T5, "vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu",
}  # fmt: skip
_BERT = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2,
    "layer_norm_eps": 1e-12, "pad_token_id": 0, "tie_word_embeddings": True,
}  # fmt: skip
_ROBERTA = {**_BERT, "pad_token_id": 1}

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "bart": _BART,
    "bert": _BERT,
    "blenderbot": {
        **_BART, "vocab_size": 8008, "d_model": 2560, "encoder_layers": 2, "decoder_layers": 24,
        "encoder_ffn_dim": 10240, "decoder_ffn_dim": 10240, "encoder_attention_heads": 32,
        "decoder_attention_heads": 32, "max_position_embeddings": 128,
    },
    "blenderbot-small": {
        **_BART, "d_model": 512, "encoder_layers": 8, "decoder_layers": 8, "encoder_ffn_dim": 2048,
        "decoder_ffn_dim": 2048, "max_position_embeddings": 512,
    },
    "camembert": _ROBERTA,
    "distilbert": {
        "vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072, "activation": "gelu",
        "max_position_embeddings": 512, "pad_token_id": 0, "tie_word_embeddings": True,
    },
    "electra": {
        **_BERT, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "embedding_size": 128,
    },
    "ernie": {**_BERT, "task_type_vocab_size": 3},
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "gpt2": {
        "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "scale_attn_weights": True,
        "tie_word_embeddings": True,
    },
    "gpt_neox": {
        "vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
        "intermediate_size": 24576, "hidden_act": "gelu", "max_position_embeddings": 2048, "layer_norm_eps": 1e-5,
        "use_parallel_residual": True, "attention_bias": True, "rotary_pct": 0.25, "rotary_emb_base": 10000.0,
    },
    "llama": _LLAMA,
    "m2m_100": {
        **_BART, "vocab_size": 128112, "activation_function": "relu", "scale_embedding": True, "pad_token_id": 1,
    },
    "marian": {**_BART, "vocab_size": 58101, "share_encoder_decoder_embeddings": True},
    "mbart": _BART,
    "ministral": _MISTRAL,
    "mistral": _MISTRAL,
    "mt5": _MT5,
    "pegasus": _BART,
    "phi3": {
        **_LLAMA, "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "partial_rotary_factor": 1.0,
    },
    "qwen2": _QWEN2,
    "qwen3": {**_QWEN2, "head_dim": 128},
    "roberta": {**_ROBERTA, "vocab_size": 50265},
    "starcoder2": {
        **_LLAMA, "vocab_size": 49152, "hidden_size": 3072, "intermediate_size": 12288, "num_hidden_layers": 30,
        "num_attention_heads": 24, "num_key_value_heads": 2, "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 4096, "norm_epsilon": 1e-5, "use_bias": True, "tie_word_embeddings": True,
    },
    "t5": _T5,
    "umt5": _MT5,
    "whisper": {
        "vocab_size": 51865, "d_model": 384, "encoder_layers": 4, "decoder_layers": 4, "encoder_ffn_dim": 1536,
        "decoder_ffn_dim": 1536, "encoder_attention_heads": 6, "decoder_attention_heads": 6, "num_mel_bins": 80,
        "activation_function": "gelu", "max_source_positions": 1500, "max_target_positions": 448,
        "is_encoder_decoder": True, "tie_word_embeddings": True,
    },
    "xlm-roberta": _ROBERTA,
}  # fmt: skip

# Names that the classes of transformers have for their keys besides, which win.
_T5_NAMES = {
    "hidden_size": "d_model", "num_attention_heads": "num_heads", "num_hidden_layers": "num_layers", "head_dim": "d_kv"
}  # fmt: skip
_BART_NAMES = {
    "hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads", "num_hidden_layers": "encoder_layers"
}  # fmt: skip
ALIASES: Mapping[str, Mapping[str, str]] = {
    "bart": _BART_NAMES,
    "blenderbot": _BART_NAMES,
    "blenderbot-small": _BART_NAMES,
    "distilbert": {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    "gpt2": {
        "hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    "m2m_100": _BART_NAMES,
    "marian": _BART_NAMES,
    "mbart": _BART_NAMES,
    "mt5": _T5_NAMES,
    "pegasus": _BART_NAMES,
    "t5": _T5_NAMES,
    "umt5": _T5_NAMES,
    "whisper": {**_BART_NAMES, "num_key_value_heads": "encoder_attention_heads"},
}  # fmt: skip


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with what it leaves unsaid, each key under the name that its family reads."""
    model_type = config["model_type"]
    aliases = ALIASES.get(model_type, {})
    own = {name: value for name, value in config.items() if name not in aliases}
    renamed = {aliases[name]: value for name, value in config.items() if name in aliases}
    return {**DEFAULTS[model_type], **own, **renamed}
