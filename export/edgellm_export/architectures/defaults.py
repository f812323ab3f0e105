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
_DEEPSEEK = {
    **_LLAMA, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}  # fmt: skip
_MISTRAL = {
    **_LLAMA, "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072,
    "sliding_window": 4096,
}  # fmt: skip
_QWEN2 = {
    **_LLAMA, "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32,
    "max_position_embeddings": 32768, "sliding_window": 4096, "max_window_layers": 28,
}  # fmt: skip
_QWEN2_VL = {
    **_QWEN2, "vocab_size": 152064, "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
    "max_window_layers": 80,
}  # fmt: skip
_OLMO = {**_LLAMA, "vocab_size": 50304, "rms_norm_eps": 1e-5}
_MAMBA = {
    "mamba_n_heads": 128, "mamba_n_groups": 1, "mamba_d_state": 256, "mamba_d_head": "auto", "mamba_d_conv": 4,
    "mamba_expand": 2, "mamba_conv_bias": True,
}  # fmt: skip
_GRANITE = {
    **_LLAMA, "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0,
    "attention_multiplier": 1.0,
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
_GLM = {
    **_LLAMA, "vocab_size": 151552, "intermediate_size": 13696, "num_hidden_layers": 40, "num_key_value_heads": 2,
    "head_dim": 128, "max_position_embeddings": 131072, "rms_norm_eps": 1.5625e-07, "attention_bias": True,
    "partial_rotary_factor": 0.5,
}  # fmt: skip
_COHERE = {
    **_LLAMA, "vocab_size": 256000, "hidden_size": 8192, "intermediate_size": 22528, "num_hidden_layers": 40,
    "num_attention_heads": 64, "max_position_embeddings": 8192, "layer_norm_eps": 1e-5, "logit_scale": 0.0625,
    "tie_word_embeddings": True,
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
_GPTJ = {
    "vocab_size": 50400, "n_embd": 4096, "n_layer": 28, "n_head": 16, "n_positions": 2048, "rotary_dim": 64,
    "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
}  # fmt: skip

_DEBERTA = {
    **_BERT, "vocab_size": 50265, "type_vocab_size": 0, "layer_norm_eps": 1e-7, "max_relative_positions": -1,
    "position_biased_input": True, "pooler_hidden_act": "gelu", "legacy": True,
}  # fmt: skip
_GTE = {
    **_BERT, "vocab_size": 250048, "max_position_embeddings": 8192, "type_vocab_size": 1, "pad_token_id": 1,
    "rope_theta": 160000.0,
}  # fmt: skip

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "albert": {
        **_BERT, "vocab_size": 30000, "embedding_size": 128, "hidden_size": 4096, "num_hidden_groups": 1,
        "num_attention_heads": 64, "intermediate_size": 16384, "inner_group_num": 1, "hidden_act": "gelu_new",
    },
    "apertus": {
        **_LLAMA, "vocab_size": 131072, "intermediate_size": 14336, "hidden_act": "xielu",
        "max_position_embeddings": 65536, "rms_norm_eps": 1e-5, "rope_theta": 12000000.0,
        "rope_parameters": {  # before which rope_scaling goes
            "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    },
    "arcee": {
        **_LLAMA, "hidden_size": 2560, "intermediate_size": 18432, "hidden_act": "relu2",
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    },
    "bart": _BART,
    "bert": _BERT,
    "bitnet": {
        **_LLAMA, "vocab_size": 128256, "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 30,
        "num_attention_heads": 20, "num_key_value_heads": 5, "hidden_act": "relu2", "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
    },
    "blenderbot": {
        **_BART, "vocab_size": 8008, "d_model": 2560, "encoder_layers": 2, "decoder_layers": 24,
        "encoder_ffn_dim": 10240, "decoder_ffn_dim": 10240, "encoder_attention_heads": 32,
        "decoder_attention_heads": 32, "max_position_embeddings": 128,
    },
    "blenderbot-small": {
        **_BART, "d_model": 512, "encoder_layers": 8, "decoder_layers": 8, "encoder_ffn_dim": 2048,
        "decoder_ffn_dim": 2048, "max_position_embeddings": 512,
    },
    "bamba": {
        **_LLAMA, **_MAMBA, "vocab_size": 128000, "intermediate_size": 14336, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 262144,
    },
    "bloom": {
        "vocab_size": 250880, "hidden_size": 64, "n_layer": 2, "n_head": 8, "layer_norm_epsilon": 1e-5,
        "seq_length": 2048, "tie_word_embeddings": True,
    },
    "camembert": _ROBERTA,
    "codegen": _GPTJ,
    "cohere": _COHERE,
    "cohere2": {**_COHERE, "sliding_window": 4096, "sliding_window_pattern": 4},
    "data2vec-text": _ROBERTA,
    "deberta": _DEBERTA,
    "deberta-v2": {
        **_DEBERTA, "vocab_size": 128100, "hidden_size": 1536, "num_hidden_layers": 24, "num_attention_heads": 24,
        "intermediate_size": 6144,
    },
    "deepseek_v2": {
        **_DEEPSEEK, "n_routed_experts": 64, "n_shared_experts": 2, "moe_intermediate_size": 1407,
        "routed_scaling_factor": 1.0, "topk_method": "greedy",
    },
    "deepseek_v3": {
        **_DEEPSEEK, "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61,
        "num_attention_heads": 128, "num_key_value_heads": 128, "max_position_embeddings": 4096,
        "n_routed_experts": 256, "n_shared_experts": 1, "moe_intermediate_size": 2048, "routed_scaling_factor": 2.5,
        "n_group": 8, "topk_group": 4, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "norm_topk_prob": True,
        "rope_interleave": True,
    },
    "distilbert": {
        "vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072, "activation": "gelu",
        "max_position_embeddings": 512, "pad_token_id": 0, "tie_word_embeddings": True,
    },
    "electra": {
        **_BERT, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "embedding_size": 128,
    },
    "ernie": {**_BERT, "task_type_vocab_size": 3},
    "ernie4_5": {
        **_LLAMA, "vocab_size": 103424, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 18,
        "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": True,
    },
    "esm": {
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "max_position_embeddings": 1026, "layer_norm_eps": 1e-12, "position_embedding_type": "absolute",
        "rope_theta": 10000.0, "tie_word_embeddings": True,
    },
    "eurobert": {
        **_LLAMA, "vocab_size": 128256, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "classifier_pooling": "late",
    },
    "exaone4": {
        **_LLAMA, "vocab_size": 102400, "intermediate_size": 16384, "num_key_value_heads": 32, "rms_norm_eps": 1e-5,
        "sliding_window": 4096, "sliding_window_pattern": 4,
    },
    "falcon": {
        "vocab_size": 65024, "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
        "layer_norm_epsilon": 1e-5, "multi_query": True, "parallel_attn": True, "max_position_embeddings": 2048,
        "rope_theta": 10000.0, "activation": "gelu", "tie_word_embeddings": True,
    },
    "gemma": {
        **_LLAMA, "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 8192, "tie_word_embeddings": True,
    },
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "gemma3n_text": {
        "vocab_size": 262400, "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 35,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "sliding_window": 512,
        "rope_theta": 1e6, "rope_local_base_freq": 10000.0, "final_logit_softcapping": 30.0,
        "vocab_size_per_layer_input": 262144, "hidden_size_per_layer_input": 256, "altup_active_idx": 0,
        "altup_coef_clip": 120.0, "altup_correct_scale": True, "altup_num_inputs": 4, "num_kv_shared_layers": 15,
        "laurel_rank": 64,
    },
    "glm": _GLM,
    "glm4": _GLM,
    "gpt2": {
        "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "scale_attn_weights": True,
        "tie_word_embeddings": True,
    },
    "gpt_bigcode": {
        "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
        "activation_function": "gelu_pytorch_tanh", "layer_norm_epsilon": 1e-5, "scale_attn_weights": True,
        "multi_query": True, "tie_word_embeddings": True,
    },
    "gpt_neo": {
        "vocab_size": 50257, "hidden_size": 2048, "num_layers": 24, "num_heads": 16, "max_position_embeddings": 2048,
        "attention_types": [[["global", "local"], 12]], "window_size": 256, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
    },
    "gpt_neox": {
        "vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
        "intermediate_size": 24576, "hidden_act": "gelu", "max_position_embeddings": 2048, "layer_norm_eps": 1e-5,
        "use_parallel_residual": True, "attention_bias": True, "rotary_pct": 0.25, "rotary_emb_base": 10000.0,
    },
    "gpt_oss": {
        **_LLAMA, "vocab_size": 201088, "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 36,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5, "rope_theta": 150000.0, "sliding_window": 128, "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "rope_scaling": {
            "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    },
    "gptj": _GPTJ,
    "granite": _GRANITE,
    "granitemoe": {
        **_LLAMA, "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0,
        "attention_multiplier": 1.0, "num_local_experts": 8, "num_experts_per_tok": 2,
    },
    "granitemoehybrid": {
        **_GRANITE, "num_local_experts": 8, "num_experts_per_tok": 2, "shared_intermediate_size": 1024,
        **_MAMBA,
    },
    "gte": _GTE,
    "helium": {
        **_LLAMA, "vocab_size": 48000, "hidden_size": 2560, "intermediate_size": 7040, "num_hidden_layers": 24,
        "num_attention_heads": 20, "num_key_value_heads": 20, "head_dim": 128, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-8, "rope_theta": 100000.0,
    },
    "hunyuan_v1_dense": {**_LLAMA, "vocab_size": 290943, "rms_norm_eps": 1e-5},
    "lfm2": {
        "vocab_size": 65536, "hidden_size": 2560, "intermediate_size": 12288, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 128000, "norm_eps": 1e-5,
        "tie_word_embeddings": True, "rope_theta": 1000000.0, "conv_bias": False, "conv_L_cache": 3,
        "block_multiple_of": 256, "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": True,
    },
    "llama": _LLAMA,
    "mamba2": {
        "vocab_size": 32768, "hidden_size": 4096, "num_hidden_layers": 64, "num_heads": 128, "head_dim": 64,
        "state_size": 128, "layer_norm_epsilon": 1e-5, "expand": 2, "conv_kernel": 4, "n_groups": 8,
        "use_conv_bias": True, "hidden_act": "silu",
    },
    "led": {
        **_BART, "max_encoder_position_embeddings": 16384, "max_decoder_position_embeddings": 1024,
        "attention_window": 512,
    },
    "longt5": {**_T5, "local_radius": 127, "global_block_size": 16, "encoder_attention_type": "local"},
    "m2m_100": {
        **_BART, "vocab_size": 128112, "activation_function": "relu", "scale_embedding": True, "pad_token_id": 1,
    },
    "marian": {**_BART, "vocab_size": 58101, "share_encoder_decoder_embeddings": True},
    "mbart": _BART,
    "megatron-bert": {
        **_BERT, "vocab_size": 29056, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "ministral": _MISTRAL,
    "mistral": _MISTRAL,
    "mixtral": {
        **_MISTRAL, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "num_experts_per_tok": 2, "num_local_experts": 8,
        "sliding_window": None,
    },
    "modernbert": {
        "vocab_size": 50368, "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22,
        "num_attention_heads": 12, "hidden_activation": "gelu", "max_position_embeddings": 8192, "norm_eps": 1e-5,
        "global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "global_attn_every_n_layers": 3,
        "local_attention": 128, "decoder_bias": True, "classifier_pooling": "cls", "classifier_activation": "gelu",
        "tie_word_embeddings": True,
    },
    "mpnet": {
        **{key: value for key, value in _ROBERTA.items() if key != "type_vocab_size"}, "vocab_size": 30527,
        "relative_attention_num_buckets": 32,
    },
    "mpt": {
        "vocab_size": 50368, "d_model": 2048, "n_layers": 24, "n_heads": 16, "max_seq_len": 2048,
        "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
    },
    "mt5": {**_MT5, "tie_word_embeddings": False},
    "nemotron": {
        **_LLAMA, "vocab_size": 256000, "hidden_size": 6144, "intermediate_size": 24576, "num_attention_heads": 48,
        "hidden_act": "relu2", "max_position_embeddings": 4096, "norm_eps": 1e-5, "partial_rotary_factor": 0.5,
    },
    "new": {**_GTE, "vocab_size": 30528, "max_position_embeddings": 2048, "rope_theta": 10000.0, "pad_token_id": 0},
    "nomic_bert": {
        **_BERT, "vocab_size": 30528, "hidden_act": "silu", "max_position_embeddings": 2048, "rope_theta": 1000.0,
        "rotary_emb_base": 10000.0,
    },
    "olmo": _OLMO,
    "olmo2": _OLMO,
    "olmo3": {**_OLMO, "sliding_window": 4096},
    "olmoe": {
        **_LLAMA, "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 16, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "num_experts_per_tok": 8,
        "num_experts": 64,
    },
    "opt": {
        "vocab_size": 50272, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072,
        "max_position_embeddings": 2048, "activation_function": "relu", "do_layer_norm_before": True,
        "enable_bias": True, "layer_norm_elementwise_affine": True, "tie_word_embeddings": True,
    },
    "pegasus": _BART,
    "phi": {
        "vocab_size": 51200, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
        "num_attention_heads": 32, "hidden_act": "gelu_new", "max_position_embeddings": 2048, "layer_norm_eps": 1e-5,
        "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
    },
    "phi3": {
        **_LLAMA, "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "partial_rotary_factor": 1.0,
    },
    "phimoe": {
        **_LLAMA, "vocab_size": 32064, "intermediate_size": 6400, "num_key_value_heads": 8,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "num_experts_per_tok": 2,
        "num_local_experts": 16, "router_jitter_noise": 0.01,
    },
    "prophetnet": {
        "vocab_size": 30522, "hidden_size": 1024, "num_encoder_layers": 12, "num_decoder_layers": 12,
        "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "num_encoder_attention_heads": 16,
        "num_decoder_attention_heads": 16, "activation_function": "gelu", "max_position_embeddings": 512,
        "ngram": 2, "num_buckets": 32, "relative_max_distance": 128, "is_encoder_decoder": True,
        "add_cross_attention": True, "tie_word_embeddings": True,
    },
    "qwen2": _QWEN2,
    "qwen2_5_vl_text": _QWEN2_VL,
    "qwen2_moe": {
        **_QWEN2, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 16, "decoder_sparse_step": 1, "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632, "num_experts_per_tok": 4, "num_experts": 60, "qkv_bias": True,
    },
    "qwen2_vl_text": _QWEN2_VL,
    "qwen3": {**_QWEN2, "head_dim": 128},
    "qwen3_moe": {
        **_QWEN2, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24, "num_key_value_heads": 4,
        "decoder_sparse_step": 1, "moe_intermediate_size": 768, "num_experts_per_tok": 8, "num_experts": 128,
    },
    "qwen3_vl_text": {
        **_LLAMA, "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32, "head_dim": 128,
        "max_position_embeddings": 128000, "rope_theta": 5e6,
    },
    "rembert": {
        **_BERT, "vocab_size": 250300, "hidden_size": 1152, "num_hidden_layers": 32, "num_attention_heads": 18,
        "input_embedding_size": 256, "output_embedding_size": 1664, "intermediate_size": 4608,
        "tie_word_embeddings": False,
    },
    "roberta": {**_ROBERTA, "vocab_size": 50265},
    "roberta-prelayernorm": {**_ROBERTA, "vocab_size": 50265},
    "roformer": {**_BERT, "vocab_size": 50000, "max_position_embeddings": 1536},
    "seed_oss": {
        **_LLAMA, "vocab_size": 155136, "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 80,
        "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 524288, "attention_bias": True,
    },
    "smollm3": {
        **_LLAMA, "vocab_size": 128256, "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16,
        "num_key_value_heads": 4, "max_position_embeddings": 32768, "rope_theta": 2e6, "no_rope_layer_interval": 4,
        "tie_word_embeddings": True,
    },
    "stablelm": {
        **_LLAMA, "vocab_size": 50304, "hidden_size": 2560, "intermediate_size": 6912, "num_key_value_heads": 32,
        "max_position_embeddings": 4096, "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25,
    },
    "starcoder2": {
        **_LLAMA, "vocab_size": 49152, "hidden_size": 3072, "intermediate_size": 12288, "num_hidden_layers": 30,
        "num_attention_heads": 24, "num_key_value_heads": 2, "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 4096, "norm_epsilon": 1e-5, "use_bias": True, "tie_word_embeddings": True,
    },
    "t5": _T5,
    "t5gemma": {"vocab_size": 256000, "is_encoder_decoder": True, "tie_word_embeddings": True},
    "umt5": _MT5,
    "moonshine": {
        "vocab_size": 32768, "hidden_size": 288, "intermediate_size": 1152, "encoder_num_hidden_layers": 6,
        "decoder_num_hidden_layers": 6, "encoder_num_attention_heads": 8, "decoder_num_attention_heads": 8,
        "encoder_num_key_value_heads": 8, "decoder_num_key_value_heads": 8, "encoder_hidden_act": "gelu",
        "decoder_hidden_act": "silu", "max_position_embeddings": 512, "rope_theta": 10000.0,
        "partial_rotary_factor": 0.9, "is_encoder_decoder": True, "attention_bias": False, "tie_word_embeddings": True,
    },
    "whisper": {
        "vocab_size": 51865, "d_model": 384, "encoder_layers": 4, "decoder_layers": 4, "encoder_ffn_dim": 1536,
        "decoder_ffn_dim": 1536, "encoder_attention_heads": 6, "decoder_attention_heads": 6, "num_mel_bins": 80,
        "activation_function": "gelu", "max_source_positions": 1500, "max_target_positions": 448,
        "is_encoder_decoder": True, "tie_word_embeddings": True,
    },
    "xlm-roberta": _ROBERTA,
    "xlm-roberta-xl": {
        **_ROBERTA, "vocab_size": 250880, "hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32,
        "intermediate_size": 10240, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
    },
}  # fmt: skip

# Names that the classes of transformers have for their keys besides, which win.
_T5_NAMES = {
    "hidden_size": "d_model", "num_attention_heads": "num_heads", "num_hidden_layers": "num_layers", "head_dim": "d_kv"
}  # fmt: skip
_BART_NAMES = {
    "hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads", "num_hidden_layers": "encoder_layers"
}  # fmt: skip
_GPT2_NAMES = {
    "hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}  # fmt: skip
ALIASES: Mapping[str, Mapping[str, str]] = {
    "bart": _BART_NAMES,
    "blenderbot": _BART_NAMES,
    "blenderbot-small": _BART_NAMES,
    "bloom": {"num_attention_heads": "n_head", "num_hidden_layers": "n_layer"},
    "codegen": _GPT2_NAMES,
    "distilbert": {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    "gpt2": _GPT2_NAMES,
    "gpt_bigcode": _GPT2_NAMES,
    "gpt_neo": {"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"},
    "gptj": _GPT2_NAMES,
    "granitemoehybrid": {"layers_block_type": "layer_types"},
    "lfm2": {"block_ff_dim": "intermediate_size", "tie_embedding": "tie_word_embeddings"},
    "led": {
        **_BART_NAMES, "attention_probs_dropout_prob": "attention_dropout", "initializer_range": "init_std",
    },
    "longt5": _T5_NAMES,
    "m2m_100": _BART_NAMES,
    "marian": _BART_NAMES,
    "mbart": _BART_NAMES,
    "moonshine": {
        "num_key_value_heads": "encoder_num_key_value_heads", "num_attention_heads": "encoder_num_attention_heads",
        "num_hidden_layers": "encoder_num_hidden_layers",
    },
    "modernbert": {"rope_theta": "global_rope_theta"},
    "mpt": {"hidden_size": "d_model", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    "mt5": _T5_NAMES,
    "pegasus": _BART_NAMES,
    "prophetnet": {"num_attention_heads": "num_encoder_attention_heads"},
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
    usual = dict(DEFAULTS[model_type])
    if own.get("rope_parameters") is not None:  # where transformers 5 puts it
        usual.pop("rope_scaling", None)
    return {**usual, **own, **renamed}
