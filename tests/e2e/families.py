"""Tiny checkpoints, one list for all checks: seeded, realistic in kind, made by transformers, also the reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CONTEXT = 96  # tokens

SIZES: dict[str, Any] = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
ALPHA = {"type": "dynamic", "alpha": 50.0, "factor": 1.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24, "beta_fast": 4.0, "beta_slow": 1.0}


def _longrope(pairs: int) -> dict[str, Any]:
    short, long = [1.0 + 0.05 * i for i in range(pairs)], [1.5 + 0.4 * i for i in range(pairs)]
    return {"type": "longrope", "short_factor": short, "long_factor": long}


@dataclass(frozen=True)
class Family:
    """`config` makes the transformers config. `length`: tokens in the parity prompt. `end_scale`: the factor of the
    head's row of the end token, which random weights choose no more often than any other. `gated`: its MLP is.
    `norms`: how many of a layer's norms linear layers alone read. `attention`: the implementation that is the
    reference. `neighbours`: how many of a head's channels rotate with the one beside them.
    `chooses`: experts, of which two may be all but equal, so that rounding decides.
    `convolves`: some layers, whose cache no other runtime knows. `remembers`: some layers, in states."""

    name: str
    config: Callable[[], hf.PretrainedConfig]
    length: int = 60
    end_scale: float = 1.0
    gated: bool = True
    norms: int = 2
    attention: str = "eager"
    neighbours: int = 0
    chooses: bool = False
    convolves: bool = False
    remembers: bool = False


def _sized(config_class: type[hf.PretrainedConfig], **changes: Any) -> Callable[[], hf.PretrainedConfig]:
    settings = {**SIZES, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **changes}
    return lambda: config_class(**settings)


_MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.2,
    "logits_scaling": 2.5,
}
_DENSE = {
    "hidden_size": 96,
    "num_local_experts": 0,
    "layer_types": ["attention"] * 3,
    "shared_intermediate_size": 80,
    "mamba_n_heads": 6,
}
_STATES = {"hidden_size": 96, "mamba_n_heads": 6, "mamba_d_state": 24, "shared_intermediate_size": 80}
_MAMBA = {"hidden_size": 96, "mamba_n_heads": 6, "mamba_d_state": 24, "attn_layer_indices": [1]}
_CONVOLVED = {
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    "block_multiple_of": 8,
}


_GEMMA3N = {
    "num_hidden_layers": 7,
    "layer_types": ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"] * 2 + ["full_attention"],
    "num_kv_shared_layers": 3,
    "sliding_window": 12,
    "intermediate_size": [88, 72, 96, 64, 88, 80, 64],
    "activation_sparsity_pattern": [0.95, 0.7, 0.0, 0.0, 0.6, 0.0, 0.0],
    "vocab_size_per_layer_input": 131,
    "hidden_size_per_layer_input": 24,
    "altup_num_inputs": 4,
    "laurel_rank": 8,
}
_OWN_KEYS = {
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "intermediate_size": 72,
    "activation_sparsity_pattern": [0.0, 0.6, 0.0, 0.0],
    "num_kv_shared_layers": 0,
    "vocab_size_per_layer_input": 140,
    "altup_num_inputs": 2,
    "altup_active_idx": 1,
    "altup_correct_scale": False,
}


def _mamba2(**changes: Any) -> Callable[[], hf.PretrainedConfig]:
    """Of one group: of several, transformers 4 norms all together, and 5 each by itself."""
    sizes = {
        "vocab_size": 131,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_heads": 6,
        "head_dim": 16,
        "n_groups": 1,
    }
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return lambda: hf.Mamba2Config(**{**sizes, **special, "state_size": 20, "chunk_size": 16, **changes})


def _gpt2(**changes: Any) -> Callable[[], hf.PretrainedConfig]:
    sizes = {"vocab_size": 131, "n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": CONTEXT}
    return lambda: hf.GPT2Config(**{**sizes, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **changes})


def _neox(**changes: Any) -> Callable[[], hf.PretrainedConfig]:
    sizes = {name: SIZES[name] for name in SIZES if name not in ("head_dim", "num_key_value_heads")}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return lambda: hf.GPTNeoXConfig(**{**sizes, **special, "hidden_size": 96, **changes})


def _mixture(name: str, config_class: type[hf.PretrainedConfig], **changes: Any) -> Family:
    sizes = {"num_experts": 5, "num_local_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
    return Family(name, _sized(config_class, **{**sizes, **changes}), chooses=True)


def _latent(name: str, config_class: type[hf.PretrainedConfig], **changes: Any) -> Family:
    """Of six heads whose keys and values are made of 32 channels; the first layer has no experts."""
    heads = {"qk_nope_head_dim": 24, "qk_rope_head_dim": 16, "v_head_dim": 20, "kv_lora_rank": 32}
    sizes = {"n_routed_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 40, "n_shared_experts": 1}
    fixed = {"num_key_value_heads": 6, "first_k_dense_replace": 1}
    return Family(name, _sized(config_class, **{**heads, **sizes, **fixed, **changes}), norms=1, chooses=True)


def _six_heads(config_class: type[hf.PretrainedConfig], **changes: Any) -> Callable[[], hf.PretrainedConfig]:
    """Of 16 channels each, under the names that all configs know."""
    sizes = {name: SIZES[name] for name in ("vocab_size", "num_hidden_layers", "num_attention_heads")}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return lambda: config_class(**{**sizes, **special, "hidden_size": 96, **changes})


_OPT = {"max_position_embeddings": CONTEXT, "ffn_dim": 88, "word_embed_proj_dim": 96}


FAMILIES = [
    Family("gpt2", _gpt2(), gated=False),
    Family(
        "gpt2-untied",
        _gpt2(tie_word_embeddings=False, n_inner=72, activation_function="gelu", vocab_size=97),
        gated=False,
    ),
    Family("gpt_neox", _neox(), gated=False),
    Family(
        "gpt_neox-in-turn",
        _neox(use_parallel_residual=False, attention_bias=False, tie_word_embeddings=True),
        gated=False,
    ),
    Family("gpt_neox-odd-rotary", _neox(rotary_pct=0.4, hidden_act="gelu_new"), gated=False),  # 6 of 16 channels
    Family(
        "gpt_neox-linear",
        _neox(hidden_size=192, rotary_pct=0.5, rope_scaling={"rope_type": "linear", "factor": 2.0}),
        gated=False,
    ),
    Family("llama", _sized(hf.LlamaConfig)),
    Family("llama-biases-tied", _sized(hf.LlamaConfig, attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    Family("llama-one-kv-head", _sized(hf.LlamaConfig, num_key_value_heads=1, head_dim=32, vocab_size=257)),
    Family("llama-linear", _sized(hf.LlamaConfig, rope_scaling={"rope_type": "linear", "factor": 2.5})),
    Family(
        "llama-dynamic",
        _sized(hf.LlamaConfig, max_position_embeddings=32, rope_scaling={"rope_type": "dynamic", "factor": 3.0}),
    ),
    Family("llama-llama3", _sized(hf.LlamaConfig, rope_scaling=LLAMA3)),
    Family("llama-yarn", _sized(hf.LlamaConfig, rope_scaling=YARN)),
    Family("mistral", _sized(hf.MistralConfig, sliding_window=None)),
    Family("mistral-sliding", _sized(hf.MistralConfig, sliding_window=13)),
    Family(
        "ministral",
        _sized(hf.MinistralConfig, sliding_window=13, layer_types=["sliding_attention", *["full_attention"] * 2]),
    ),
    Family("qwen2", _sized(hf.Qwen2Config, tie_word_embeddings=True)),
    Family("qwen2-sliding", _sized(hf.Qwen2Config, use_sliding_window=True, sliding_window=11, max_window_layers=1)),
    Family("qwen3", _sized(hf.Qwen3Config, head_dim=32)),
    Family("qwen3-biases", _sized(hf.Qwen3Config, attention_bias=True, tie_word_embeddings=True)),
    _mixture("qwen3_moe", hf.Qwen3MoeConfig, head_dim=32, norm_topk_prob=True),
    _mixture("qwen3_moe-some-layers", hf.Qwen3MoeConfig, mlp_only_layers=[2], attention_bias=True),
    _mixture("mixtral", hf.MixtralConfig),
    _mixture("mixtral-sliding", hf.MixtralConfig, sliding_window=13),
    _mixture("olmoe", hf.OlmoeConfig, hidden_size=96),
    _mixture("olmoe-clipped", hf.OlmoeConfig, hidden_size=96, clip_qkv=0.3, norm_topk_prob=True, attention_bias=True),
    _mixture("qwen2_moe", hf.Qwen2MoeConfig, hidden_size=96, shared_expert_intermediate_size=56),
    _mixture(
        "qwen2_moe-some-layers",
        hf.Qwen2MoeConfig,
        hidden_size=96,
        shared_expert_intermediate_size=56,
        decoder_sparse_step=2,
        norm_topk_prob=True,
        qkv_bias=False,
    ),
    _mixture("granitemoe", hf.GraniteMoeConfig, hidden_size=96, attention_multiplier=0.25),
    _mixture(
        "granitemoe-multipliers",
        hf.GraniteMoeConfig,
        hidden_size=96,
        embedding_multiplier=3.0,
        residual_multiplier=0.4,
        attention_multiplier=0.15,
        logits_scaling=2.0,
        attention_bias=True,
        tie_word_embeddings=True,
    ),
    _mixture("gpt_oss", hf.GptOssConfig, sliding_window=13, rope_scaling={**YARN, "truncate": False}),
    _mixture("phimoe", hf.PhimoeConfig, hidden_size=96, router_jitter_noise=0.05),
    _mixture(
        "phimoe-longrope",
        hf.PhimoeConfig,
        hidden_size=96,
        attention_bias=True,
        lm_head_bias=True,
        rope_scaling={**_longrope(8), "original_max_position_embeddings": 24, "short_mscale": 1.2, "long_mscale": 1.2},
    ),
    _latent("deepseek_v2", hf.DeepseekV2Config, q_lora_rank=None),
    _latent(
        "deepseek_v2-groups",
        hf.DeepseekV2Config,
        q_lora_rank=40,
        attention_bias=True,
        topk_method="group_limited_greedy",
        n_group=3,
        topk_group=2,
        routed_scaling_factor=1.7,
        rope_scaling={**YARN, "mscale": 0.7},
    ),
    _latent("deepseek_v3", hf.DeepseekV3Config, q_lora_rank=None, n_group=1, topk_group=1),
    _latent(
        "deepseek_v3-groups",
        hf.DeepseekV3Config,
        q_lora_rank=40,
        n_group=3,
        topk_group=2,
        attention_bias=True,
        norm_topk_prob=False,
        rope_interleave=False,
        n_shared_experts=2,
        rope_scaling={**YARN, "mscale": 0.7, "mscale_all_dim": 1.3},
    ),
    Family("starcoder2", _sized(hf.Starcoder2Config), gated=False),
    Family("starcoder2-sliding", _sized(hf.Starcoder2Config, sliding_window=13, hidden_act="gelu"), gated=False),
    Family("starcoder2-no-bias", _sized(hf.Starcoder2Config, use_bias=False, tie_word_embeddings=False), gated=False),
    Family(
        "phi",
        _sized(hf.PhiConfig, hidden_size=96, num_key_value_heads=6, head_dim=16, partial_rotary_factor=1.0),
        gated=False,
        norms=1,
    ),
    Family(
        "phi-partial",
        _sized(hf.PhiConfig, hidden_size=192, head_dim=32, tie_word_embeddings=True),
        gated=False,
        norms=1,
    ),
    Family("phi3", _sized(hf.Phi3Config, sliding_window=None, hidden_size=96)),
    Family("phi3-sliding", _sized(hf.Phi3Config, sliding_window=17, hidden_size=96)),
    Family(
        "phi3-partial",
        _sized(hf.Phi3Config, hidden_size=192, head_dim=32, partial_rotary_factor=0.5, sliding_window=None),
    ),
    Family(
        "phi3-longrope",
        _sized(hf.Phi3Config, hidden_size=96, original_max_position_embeddings=24, rope_scaling=_longrope(8)),
    ),
    Family("glm", _sized(hf.GlmConfig, head_dim=32), neighbours=16),
    Family("glm-no-bias", _sized(hf.GlmConfig, attention_bias=False, partial_rotary_factor=1.0), neighbours=16),
    Family("glm4", _sized(hf.Glm4Config, head_dim=32), neighbours=16),
    Family("cohere", _sized(hf.CohereConfig, logit_scale=0.25), norms=1, neighbours=16),
    Family(
        "cohere-normed",
        _sized(hf.CohereConfig, use_qk_norm=True, attention_bias=True, tie_word_embeddings=False, logit_scale=2.0),
        norms=1,
        neighbours=16,
    ),
    Family("cohere2", _sized(hf.Cohere2Config, sliding_window=13, sliding_window_pattern=2), norms=1, neighbours=16),
    Family("exaone4", _sized(hf.Exaone4Config, sliding_window=13, sliding_window_pattern=2), norms=0),
    Family("exaone4-wide", _sized(hf.Exaone4Config, sliding_window=None, layer_types=["full_attention"] * 3), norms=0),
    Family("ernie4_5", _sized(hf.Ernie4_5Config), neighbours=16),
    Family(
        "ernie4_5-biases",
        _sized(hf.Ernie4_5Config, use_bias=True, head_dim=32, tie_word_embeddings=False),
        neighbours=32,
    ),
    Family("hunyuan", _sized(hf.HunYuanDenseV1Config, attention_bias=True)),
    Family("hunyuan-alpha", _sized(hf.HunYuanDenseV1Config, rope_scaling=ALPHA, tie_word_embeddings=True)),
    Family("nemotron", _sized(hf.NemotronConfig, head_dim=32), gated=False),
    Family("nemotron-biases", _sized(hf.NemotronConfig, head_dim=32, attention_bias=True, mlp_bias=True), gated=False),
    Family("helium", _sized(hf.HeliumConfig, hidden_size=96), neighbours=16),
    Family(
        "helium-biases",
        _sized(hf.HeliumConfig, hidden_size=96, attention_bias=True, mlp_bias=True),
        neighbours=16,
    ),
    Family("arcee", _sized(hf.ArceeConfig, rope_scaling=YARN), gated=False),
    Family("arcee-biases", _sized(hf.ArceeConfig, attention_bias=True, mlp_bias=True), gated=False),
    Family("seed_oss", _sized(hf.SeedOssConfig)),
    Family("seed_oss-biases", _sized(hf.SeedOssConfig, attention_out_bias=True, mlp_bias=True)),
    Family("apertus", _sized(hf.ApertusConfig, rope_scaling=LLAMA3), gated=False),
    Family("bitnet", _sized(hf.BitNetConfig, hidden_size=96), norms=3),
    Family("opt", _six_heads(hf.OPTConfig, **_OPT), gated=False),
    Family(
        "opt-no-bias",
        _six_heads(hf.OPTConfig, **_OPT, enable_bias=False, tie_word_embeddings=False, activation_function="gelu"),
        gated=False,
    ),
    Family(
        "gpt_neo",
        _six_heads(
            hf.GPTNeoConfig,
            max_position_embeddings=CONTEXT,
            num_layers=3,
            attention_types=[[["global", "local"], 1], [["global"], 1]],
            window_size=13,
        ),
        gated=False,
    ),
    Family("gptj", _six_heads(hf.GPTJConfig, n_positions=CONTEXT, rotary_dim=16), gated=False, norms=1, neighbours=16),
    Family(
        "gptj-odd-rotary",
        _six_heads(hf.GPTJConfig, n_positions=CONTEXT, rotary_dim=6),
        gated=False,
        norms=1,
        neighbours=6,
    ),
    Family(
        "codegen",
        _six_heads(hf.CodeGenConfig, n_positions=CONTEXT, rotary_dim=8, num_attention_heads=4),
        gated=False,
        norms=1,
        neighbours=8,
    ),
    Family("gpt_bigcode", _six_heads(hf.GPTBigCodeConfig, n_positions=CONTEXT), gated=False),
    Family(
        "gpt_bigcode-heads",
        _six_heads(hf.GPTBigCodeConfig, n_positions=CONTEXT, multi_query=False, n_inner=72),
        gated=False,
    ),
    Family("bloom", _six_heads(hf.BloomConfig, seq_length=CONTEXT), gated=False),
    Family("mpt", _six_heads(hf.MptConfig, max_seq_len=CONTEXT), gated=False),
    Family(
        "mpt-clipped",
        _six_heads(
            hf.MptConfig,
            max_seq_len=CONTEXT,
            num_attention_heads=4,
            attn_config={"clip_qkv": 0.6, "softmax_scale": 0.3},
        ),
        gated=False,
    ),
    Family("falcon", _six_heads(hf.FalconConfig, max_position_embeddings=CONTEXT), gated=False, norms=1),
    Family(
        "falcon-new",
        _six_heads(
            hf.FalconConfig,
            max_position_embeddings=CONTEXT,
            new_decoder_architecture=True,
            num_kv_heads=2,
            ffn_hidden_size=88,
            tie_word_embeddings=False,
            rope_scaling={"rope_type": "linear", "factor": 2.0},
        ),
        gated=False,
    ),
    Family(
        "falcon-alibi",
        _six_heads(
            hf.FalconConfig,
            max_position_embeddings=CONTEXT,
            alibi=True,
            multi_query=False,
            parallel_attn=False,
            bias=True,
        ),
        gated=False,
        attention="sdpa",  # eager adds the positions twice
    ),
    Family("smollm3", _sized(hf.SmolLM3Config, no_rope_layer_interval=2)),
    Family(
        "smollm3-sliding",
        _sized(hf.SmolLM3Config, no_rope_layers=[0, 1, 0], use_sliding_window=True, sliding_window=13, mlp_bias=True),
    ),
    Family("olmo", _sized(hf.OlmoConfig)),
    Family("olmo-clipped", _sized(hf.OlmoConfig, clip_qkv=0.7, tie_word_embeddings=True)),
    Family("olmo2", _sized(hf.Olmo2Config), norms=0),
    Family("olmo2-biases", _sized(hf.Olmo2Config, attention_bias=True, tie_word_embeddings=True), norms=0),
    Family("olmo3", _sized(hf.Olmo3Config, sliding_window=13, num_hidden_layers=4), norms=0),
    Family("olmo3-yarn", _sized(hf.Olmo3Config, sliding_window=13, num_hidden_layers=4, rope_scaling=YARN), norms=0),
    Family("granite", _sized(hf.GraniteConfig, **_MULTIPLIERS, attention_bias=True, mlp_bias=True)),
    Family(
        "granitemoehybrid",
        _sized(
            hf.GraniteMoeHybridConfig,
            **_DENSE,
            **_MULTIPLIERS,
            position_embedding_type="rope",
            tie_word_embeddings=True,
        ),
    ),
    Family("granitemoehybrid-no-rope", _sized(hf.GraniteMoeHybridConfig, **_DENSE, attention_multiplier=0.25)),
    Family(
        "granitemoehybrid-mamba",
        _sized(
            hf.GraniteMoeHybridConfig,
            **{**_STATES, **_MULTIPLIERS, "num_local_experts": 0, "num_hidden_layers": 4},
            layer_types=["mamba", "attention", "mamba", "attention"],
        ),
        remembers=True,
    ),
    Family(
        "granitemoehybrid-experts",
        _sized(
            hf.GraniteMoeHybridConfig,
            **{**_STATES, "intermediate_size": 40, "num_local_experts": 5, "num_experts_per_tok": 2},
            attention_multiplier=0.25,
            layer_types=["mamba", "attention", "mamba"],
            mamba_d_conv=3,
            mamba_conv_bias=False,
            mamba_proj_bias=True,
        ),
        chooses=True,
        remembers=True,
    ),
    Family(
        "bamba",
        _sized(hf.BambaConfig, **{**_MAMBA, "head_dim": 32, "num_attention_heads": 3, "num_key_value_heads": 1}),
        remembers=True,
    ),
    Family("mamba2", _mamba2(), norms=1, gated=False, remembers=True),
    Family(
        "mamba2-biases",
        _mamba2(use_bias=True, use_conv_bias=False, conv_kernel=3, head_dim=24, num_heads=4),
        norms=1,
        gated=False,
        remembers=True,
    ),
    Family("lfm2", _sized(hf.Lfm2Config, **_CONVOLVED), convolves=True),
    Family(
        "lfm2-biases",
        _sized(hf.Lfm2Config, **_CONVOLVED, conv_bias=True, conv_L_cache=4, tie_word_embeddings=False),
        convolves=True,
    ),
    Family("stablelm", _sized(hf.StableLmConfig, hidden_size=96, use_qkv_bias=True)),
    Family(
        "stablelm-parallel",
        _sized(
            hf.StableLmConfig, hidden_size=96, use_parallel_residual=True, qk_layernorm=True, partial_rotary_factor=1.0
        ),
        norms=1,
    ),
    Family("gemma", _sized(hf.GemmaConfig)),
    Family("gemma-biases", _sized(hf.GemmaConfig, attention_bias=True, tie_word_embeddings=False)),
    Family("gemma2", _sized(hf.Gemma2Config, sliding_window=14, query_pre_attn_scalar=24)),
    Family("gemma2-no-caps", _sized(hf.Gemma2Config, attn_logit_softcapping=None, final_logit_softcapping=None)),
    Family("gemma3", _sized(hf.Gemma3TextConfig, sliding_window=12, num_hidden_layers=6, query_pre_attn_scalar=20)),
    Family("gemma3n", _sized(hf.Gemma3nTextConfig, **_GEMMA3N), norms=3),
    Family(
        "gemma3n-own-keys",
        _sized(
            hf.Gemma3nTextConfig,
            **{**_GEMMA3N, **_OWN_KEYS},
            rope_scaling={"rope_type": "linear", "factor": 4.0},
        ),
    ),
    Family(
        "gemma3-linear",
        _sized(hf.Gemma3TextConfig, sliding_window=9, rope_scaling={"rope_type": "linear", "factor": 4.0}, head_dim=32),
    ),
]
# The same with an end token that beam search finds in many of its sequences, but not at once.
END_SCALES = {
    "gpt2": 1.7,
    "gpt2-untied": -2.2,
    "qwen2-sliding": -2.0,
    "qwen3-biases": 1.6,
    "gptj-odd-rotary": -1.6,
    "codegen": -1.6,
    "bloom": -1.6,
    "falcon-new": -1.6,
    "falcon-alibi": -1.6,
    "olmo2-biases": 3.0,
    "phi3-partial": 1.6,
    "gemma2": -3.0,
    "gemma3-linear": 6.0,
    "cohere-normed": -2.0,
    "starcoder2": -2.0,
    "starcoder2-no-bias": -2.0,
}
ENDING = [
    replace(family, name=f"{family.name}-ending", end_scale=END_SCALES.get(family.name, 2.0)) for family in FAMILIES
]
BY_NAME = {family.name: family for family in [*FAMILIES, *ENDING]}
# What searches do with a graph depends on its cache, its attention and its rotary tables, and not on the rest of a
# family: these have all kinds.
OF_ALL_KINDS = (
    "gpt2", "gpt_neox-odd-rotary", "llama-biases-tied", "llama-dynamic", "llama-llama3", "llama-yarn",
    "mistral-sliding", "ministral", "qwen2-sliding", "qwen3", "starcoder2", "phi3-partial", "phi3-longrope", "gemma2",
    "gemma3", "gptj-odd-rotary", "bloom", "falcon-alibi", "smollm3-sliding", "olmo3", "granite", "stablelm-parallel",
    "cohere2", "exaone4", "glm4", "hunyuan-alpha", "bitnet", "qwen3_moe", "qwen2_moe", "gpt_oss", "lfm2",
    "deepseek_v2", "gemma3n", "granitemoehybrid-mamba", "mamba2",
)  # fmt: skip
ENDING_OF_ALL_KINDS = [f"{name}-ending" for name in OF_ALL_KINDS]


# Its own way of making weights fails on norms without biases.
hf.StableLmPreTrainedModel._init_weights = hf.PreTrainedModel._init_weights


def make_model(family: Family) -> Any:
    """The seeded torch model in float32. Norms and biases are random too: 1 and 0 would hide mistakes."""
    torch.manual_seed(sum(map(ord, family.name)))
    config = family.config()
    config._attn_implementation = family.attention
    model = hf.AutoModelForCausalLM.from_config(config).float().eval()  # some activations have bfloat16 parameters
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(noise * 0.2) if parameter.ndim == 1 else parameter.copy_(noise * 0.15)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(torch.rand_like(buffer))  # transformers before 5 goes wrong where sums are negative
        model.get_output_embeddings().weight[config.eos_token_id] *= family.end_scale
    model.generation_config = hf.GenerationConfig.from_model_config(config)
    return model


def save_tokenizer(tokenizer: Tokenizer, path: Path, **config: Any) -> None:
    """tokenizer.json, and what says that it is meant as it is: else transformers makes of it what the model's class of
    tokenizers is."""
    tokenizer.save(str(path / "tokenizer.json"))
    content = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (path / "tokenizer_config.json").write_text(json.dumps(content))


def save_checkpoint(model: Any, path: Path, **options: Any) -> Path:
    """As `save_pretrained` writes it, with a byte-level tokenizer."""
    model.save_pretrained(path, **options)
    save_tokenizer(tiny_tokenizer(model.config.vocab_size), path)
    return path


def tiny_tokenizer(vocab_size: int) -> Tokenizer:
    """One token per byte, as far as the vocabulary goes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), key=lambda c: (not c.isascii(), c))[: vocab_size - 3]
    vocab = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
