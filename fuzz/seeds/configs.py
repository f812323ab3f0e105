"""The config.json of each family, as small as its architecture takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fuzz.seeds.writing import write_json

DECODER = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 8,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONG = {"type": "longrope", "long_factor": [2.0] * 8, "short_factor": [1.0] * 8}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 32}
GEMMA = {
    "query_pre_attn_scalar": 4,
    "sliding_window": 8,
    "layer_types": ["full_attention"],
    "hidden_activation": "gelu_pytorch_tanh",
    "attn_logit_softcapping": 50.0,
}
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "pad_token_id": 0,
    "id2label": {"0": "A"},
}
T5 = {
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 8,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "vocab_size": 40,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "feed_forward_proj": "gated-gelu",
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
BART = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "activation_function": "gelu",
    "scale_embedding": True,
    "pad_token_id": 1,
}
GPT2 = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": 40, "layer_norm_epsilon": 1e-5}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "llama": DECODER | {"rope_scaling": LLAMA3},
    "phi3": DECODER | {"rope_scaling": LONG},
    "qwen3": DECODER,
    "qwen2": DECODER | {"rope_scaling": YARN},
    "mistral": DECODER | {"sliding_window": 8},
    "gemma2": DECODER | GEMMA,
    "gemma3_text": DECODER | GEMMA,
    "gpt2": GPT2,
    "bert": BERT,
    "roberta": BERT,
    "electra": BERT,
    "distilbert": {
        "dim": 32,
        "n_heads": 2,
        "n_layers": 1,
        "hidden_dim": 8,
        "vocab_size": 40,
        "max_position_embeddings": 64,
    },
    "t5": T5,
    "mt5": T5,
    "bart": BART,
    "marian": BART,
}


def write_configs() -> None:
    for name, values in CONFIGS.items():
        write_json("config", f"seed-{name}", {"model_type": name, **values})
