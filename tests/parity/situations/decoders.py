"""Decoders, a line for each way in which a config differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from making import Situation, byte_tokenizer, edited, model, removed, without

SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
}
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
TRAINED = {"original_max_position_embeddings": 32}
LONGROPE = {
    "short_factor": [1.0 + 0.05 * i for i in range(8)],
    "long_factor": [1.5 + 0.4 * i for i in range(8)],
}
OLD_TYPE = {"type": "linear", "factor": 2.0}
CONFIG = "config.json"


def rows(config: str, name: str, older: Mapping[str, str] | None = None, **usual: Any) -> Any:
    """Makes situations of a family: their name's ending, edits, and what differs from `usual` settings. `older`: what
    4.57 reads in another way in all of them."""

    def row(ending: str, *edits: Any, **changes: Any) -> Situation:
        differs = {**(older or {}), **changes.pop("differs", {})}
        settings = {**SIZES, **IDS, **usual, **changes, "differs": differs}
        kept = {key: value for key, value in settings.items() if value is not ...}
        full = f"{name}-{ending}" if ending else name
        return model(full, config, "AutoModelForCausalLM", *edits, tokenizer=byte_tokenizer, **kept)

    return row


llama = rows("LlamaConfig", "llama")
mistral = rows("MistralConfig", "mistral")
OWN_CLASS = {"tokens": "5 takes the class of the model's type, which composes characters and cuts in its own way"}
qwen2 = rows("Qwen2Config", "qwen2", OWN_CLASS)
qwen3 = rows("Qwen3Config", "qwen3")
phi3 = rows("Phi3Config", "phi3", hidden_size=96, sliding_window=None)
gemma2 = rows("Gemma2Config", "gemma2", sliding_window=14, query_pre_attn_scalar=24)
gemma3 = rows("Gemma3TextConfig", "gemma3", sliding_window=12, num_hidden_layers=6, query_pre_attn_scalar=20)
starcoder2 = rows("Starcoder2Config", "starcoder2", hidden_size=96, head_dim=...)
neox = rows("GPTNeoXConfig", "gpt_neox", hidden_size=96, head_dim=..., num_key_value_heads=...)
EXPERTS = {"num_experts_per_tok": 2, "hidden_size": 96, "head_dim": ...}
mixtral = rows("MixtralConfig", "mixtral", **EXPERTS, num_local_experts=5)
qwen2_moe = rows("Qwen2MoeConfig", "qwen2_moe", OWN_CLASS, **EXPERTS, num_experts=5, moe_intermediate_size=40)
qwen3_moe = rows("Qwen3MoeConfig", "qwen3_moe", **EXPERTS, num_experts=5, moe_intermediate_size=40)
olmoe = rows("OlmoeConfig", "olmoe", **EXPERTS, num_experts=5)
granitemoe = rows("GraniteMoeConfig", "granitemoe", **EXPERTS, num_local_experts=5, attention_multiplier=0.25)
gpt_oss = rows("GptOssConfig", "gpt_oss", **{**EXPERTS, "head_dim": 16}, num_local_experts=5, sliding_window=13)
gpt2_sizes = dict.fromkeys(SIZES, ...)
gpt2 = rows("GPT2Config", "gpt2", **gpt2_sizes, n_embd=48, n_layer=3, n_head=3, n_positions=128)

SITUATIONS = [
    llama(""),
    llama("theta", rope_theta=500000.0),
    llama("biases-tied", attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    llama("one-kv-head", num_key_value_heads=1, head_dim=32),
    llama("linear", rope_scaling={"rope_type": "linear", "factor": 2.5}),
    llama("linear-theta", rope_theta=2000.0, rope_scaling={"rope_type": "linear", "factor": 2.0}),
    llama("dynamic", max_position_embeddings=48, rope_scaling={"rope_type": "dynamic", "factor": 3.0}),
    llama("llama3", rope_theta=500000.0, rope_scaling=LLAMA3),
    llama("yarn", rope_scaling=YARN),
    llama("yarn-factor", rope_scaling={**YARN, "attention_factor": 1.3, "beta_fast": 16.0, "beta_slow": 2.0}),
    llama("yarn-mscale", rope_scaling={**YARN, "mscale": 0.7, "mscale_all_dim": 1.2}),
    llama("eps", rms_norm_eps=1e-3),
    llama("gelu", hidden_act="gelu"),
    llama("head-dim-null", edited(CONFIG, head_dim=None), head_dim=8 * 2, hidden_size=96),
    llama("without-theta", without(CONFIG, "rope_theta", "rope_parameters", "rope_scaling")),
    llama("old-rope-beside-new", edited(CONFIG, rope_theta=123.0)),
    llama("old-scaling-of-5", without(CONFIG, "rope_parameters"), edited(CONFIG, rope_theta=5000.0, rope_scaling=None)),
    llama("old-type-key", without(CONFIG, "rope_parameters"), edited(CONFIG, rope_scaling=OLD_TYPE)),
    llama("no-kv-heads", without(CONFIG, "num_key_value_heads"), num_key_value_heads=6),
    llama("eos-list", eos_token_id=[0, 7, 9]),
    llama("eos-minus-one", edited("generation_config.json", eos_token_id=-1)),
    llama("eos-beyond", edited("generation_config.json", eos_token_id=[0, 5000])),
    llama("without-generation-config", removed("generation_config.json")),
    llama("sampling-defaults", edited("generation_config.json", do_sample=True, temperature=0.6, top_p=0.9, top_k=40)),
    llama("repetition", edited("generation_config.json", repetition_penalty=1.3, no_repeat_ngram_size=2)),
    mixtral(""),
    mixtral("window", sliding_window=13),
    qwen2_moe("", shared_expert_intermediate_size=56),
    qwen3_moe("", head_dim=32, norm_topk_prob=True),
    qwen3_moe("some-layers", mlp_only_layers=[1]),
    olmoe(""),
    olmoe("clipped", clip_qkv=0.5, norm_topk_prob=True),
    granitemoe(""),
    gpt_oss("", rope_scaling={**YARN, "truncate": False}),
    mistral(""),
    mistral("no-window", sliding_window=None),
    mistral("window", sliding_window=13),
    mistral("theta", rope_theta=1e6),
    mistral("no-head-dim", head_dim=..., hidden_size=96),
    qwen2(""),
    qwen2("tied-theta", tie_word_embeddings=True, rope_theta=1e6),
    qwen2("window-off", use_sliding_window=False, sliding_window=11),
    qwen2("window", use_sliding_window=True, sliding_window=11, max_window_layers=1),
    qwen2("yarn", rope_theta=1e6, rope_scaling=YARN),
    qwen3("", head_dim=32),
    qwen3("biases-tied", attention_bias=True, tie_word_embeddings=True, rope_theta=1e6),
    qwen3("window", use_sliding_window=True, sliding_window=11, max_window_layers=2),
    phi3(""),
    phi3("window", sliding_window=17),
    phi3("partial", hidden_size=192, head_dim=..., partial_rotary_factor=0.5),
    phi3("theta", rope_theta=20000.0),
    phi3("longrope", rope_scaling={"type": "longrope", **LONGROPE}, **TRAINED, versions=("4",)),
    phi3(
        "longrope-5",
        rope_scaling={"rope_type": "longrope", **LONGROPE},
        **TRAINED,
        versions=("5",),
    ),
    gemma2(""),
    gemma2("no-caps", attn_logit_softcapping=None, final_logit_softcapping=None),
    gemma2("theta", rope_theta=5000.0),
    gemma3(""),
    gemma3("linear", rope_scaling={"rope_type": "linear", "factor": 4.0}, head_dim=32),
    gemma3("thetas", rope_theta=3e5, rope_local_base_freq=500.0),
    gemma3("pattern", layer_types=["full_attention", "sliding_attention"] * 3),
    gemma3("cap", final_logit_softcapping=20.0),
    starcoder2(""),
    starcoder2("window", sliding_window=13, hidden_act="gelu"),
    starcoder2("untied-no-bias", use_bias=False, tie_word_embeddings=False),
    starcoder2("theta", rope_theta=1e5),
    neox(""),
    neox("in-turn", use_parallel_residual=False, attention_bias=False, tie_word_embeddings=True),
    neox("rotary", rotary_pct=0.5, rotary_emb_base=5000),
    neox("whole-rotary", rotary_pct=1.0, hidden_act="gelu_new"),
    neox("linear", rope_scaling={"rope_type": "linear", "factor": 2.0}),
    gpt2(""),
    gpt2("untied", tie_word_embeddings=False, n_inner=72, activation_function="gelu"),
    gpt2("scaled-by-layer", scale_attn_by_inverse_layer_idx=True),
    gpt2("unscaled", scale_attn_weights=False),
    gpt2("eps", layer_norm_epsilon=1e-3),
]
