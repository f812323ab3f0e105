"""Decoders, a line for each way in which a config differs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from making import Situation, byte_tokenizer, edited, model, removed, renamed, without

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
phi = rows("PhiConfig", "phi", hidden_size=96, num_key_value_heads=..., head_dim=...)
phi3 = rows("Phi3Config", "phi3", hidden_size=96, sliding_window=None)
EXACT_GELU = dict.fromkeys(("logits", "generated"), "4.57 takes gelu at its word")
gemma = rows("GemmaConfig", "gemma")
gemma2 = rows("Gemma2Config", "gemma2", sliding_window=14, query_pre_attn_scalar=24)
gemma3 = rows("Gemma3TextConfig", "gemma3", sliding_window=12, num_hidden_layers=6, query_pre_attn_scalar=20)
starcoder2 = rows("Starcoder2Config", "starcoder2", hidden_size=96, head_dim=...)
neox = rows("GPTNeoXConfig", "gpt_neox", hidden_size=96, head_dim=..., num_key_value_heads=...)
glm = rows("GlmConfig", "glm", head_dim=32)
glm4 = rows("Glm4Config", "glm4", head_dim=32)
cohere = rows("CohereConfig", "cohere", hidden_size=96, head_dim=...)
cohere2 = rows("Cohere2Config", "cohere2", hidden_size=96, head_dim=..., sliding_window=13)
exaone4 = rows("Exaone4Config", "exaone4", sliding_window=13, sliding_window_pattern=2)
ernie4_5 = rows("Ernie4_5Config", "ernie4_5")
hunyuan = rows("HunYuanDenseV1Config", "hunyuan")
nemotron = rows("NemotronConfig", "nemotron", head_dim=32)
helium = rows("HeliumConfig", "helium", hidden_size=96)
arcee = rows("ArceeConfig", "arcee")
seed_oss = rows("SeedOssConfig", "seed_oss")
IN_BFLOAT16 = {"logits": "4.57 keeps xIELU's numbers in bfloat16", "generated": "as its logits"}
apertus = rows("ApertusConfig", "apertus", IN_BFLOAT16)
bitnet = rows("BitNetConfig", "bitnet", hidden_size=96)
EXPERTS = {"num_experts_per_tok": 2, "hidden_size": 96, "head_dim": ...}
mixtral = rows("MixtralConfig", "mixtral", **EXPERTS, num_local_experts=5)
qwen2_moe = rows("Qwen2MoeConfig", "qwen2_moe", OWN_CLASS, **EXPERTS, num_experts=5, moe_intermediate_size=40)
qwen3_moe = rows("Qwen3MoeConfig", "qwen3_moe", **EXPERTS, num_experts=5, moe_intermediate_size=40)
olmoe = rows("OlmoeConfig", "olmoe", **EXPERTS, num_experts=5)
granitemoe = rows("GraniteMoeConfig", "granitemoe", **EXPERTS, num_local_experts=5, attention_multiplier=0.25)
gpt_oss = rows("GptOssConfig", "gpt_oss", **{**EXPERTS, "head_dim": 16}, num_local_experts=5, sliding_window=13)
LATENT = {
    "num_key_value_heads": 6, "head_dim": ..., "kv_lora_rank": 32, "qk_nope_head_dim": 24, "qk_rope_head_dim": 16,
    "v_head_dim": 20, "first_k_dense_replace": 1, "moe_intermediate_size": 40, "n_routed_experts": 6,
    "num_experts_per_tok": 3, "n_shared_experts": 1,
}  # fmt: skip
deepseek_v2 = rows("DeepseekV2Config", "deepseek_v2", **LATENT, q_lora_rank=None)


def corrected(made: Any) -> None:
    """With sums of scores and corrections on both sides of zero."""
    for name, buffer in made.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(buffer.new_tensor([-0.9, 0.1, -0.6, -0.8, -0.3, -0.7]))


deepseek_v3 = rows("DeepseekV3Config", "deepseek_v3", **{**LATENT, "q_lora_rank": 40}, n_group=3, topk_group=2)
LEFT_OUT = dict.fromkeys(("logits", "generated"), "4.57 takes the scores of groups that are not chosen for 0")
SAME_SCALE = dict.fromkeys(("logits", "generated"), "4.57 leaves mscale_all_dim out of the scale of DeepSeek-V2")
gpt2_sizes = dict.fromkeys(SIZES, ...)
gpt2 = rows("GPT2Config", "gpt2", **gpt2_sizes, n_embd=48, n_layer=3, n_head=3, n_positions=128)
smollm3 = rows("SmolLM3Config", "smollm3", no_rope_layer_interval=2)
olmo = rows("OlmoConfig", "olmo")
olmo2 = rows("Olmo2Config", "olmo2")
# 5 has another default for the second kind of layer, whatever the first one's is
olmo3 = rows("Olmo3Config", "olmo3", sliding_window=12, num_hidden_layers=4, rope_theta=500000.0)
FACTORS = {"embedding_multiplier": 3.0, "residual_multiplier": 0.4, "attention_multiplier": 0.2, "logits_scaling": 2.5}
granite = rows("GraniteConfig", "granite", **FACTORS)
WITHOUT_MAMBA = {"layer_types": ["attention"] * 3, "num_local_experts": 0, "mamba_n_heads": 6}
granite4 = rows(
    "GraniteMoeHybridConfig", "granite4", **FACTORS, **WITHOUT_MAMBA, hidden_size=96, head_dim=...,
    shared_intermediate_size=80, position_embedding_type="rope",
)  # fmt: skip
HYBRID = ["mamba", "attention", "mamba"]
TOGETHER = dict.fromkeys(("logits", "generated"), "4.57 norms groups together")
MAMBA_DEFAULTS = ("mamba_n_groups", "mamba_d_state", "mamba_d_head", "mamba_d_conv", "mamba_expand", "mamba_conv_bias")
mamba2 = rows(
    "Mamba2Config", "mamba2",
    **{**dict.fromkeys(SIZES, ...), "hidden_size": 48, "num_hidden_layers": 3, "head_dim": 16},
    num_heads=6, n_groups=1, state_size=20, chunk_size=16,
)  # fmt: skip
bamba = rows(
    "BambaConfig", "bamba", hidden_size=96, num_attention_heads=3, num_key_value_heads=1, head_dim=...,
    mamba_n_heads=6, attn_layer_indices=[1],
)  # fmt: skip
lfm2 = rows("Lfm2Config", "lfm2", layer_types=["conv", "full_attention", "conv"], block_multiple_of=8)
stablelm = rows("StableLmConfig", "stablelm", hidden_size=96, head_dim=...)
BEFORE_LLAMA = {**dict.fromkeys(SIZES, ...), "num_hidden_layers": 3, "num_attention_heads": 6, "hidden_size": 96}
CONTEXT = {"max_position_embeddings": 128}
opt = rows("OPTConfig", "opt", **{**BEFORE_LLAMA, **CONTEXT}, ffn_dim=88, word_embed_proj_dim=96)
ONE_OF_THREE = {"num_layers": 3, "attention_types": [[["global", "local"], 1], [["global"], 1]], "window_size": 13}
gpt_neo = rows("GPTNeoConfig", "gpt_neo", **{**BEFORE_LLAMA, **CONTEXT}, **ONE_OF_THREE)
gptj = rows("GPTJConfig", "gptj", **BEFORE_LLAMA, n_positions=128, rotary_dim=16)
codegen = rows("CodeGenConfig", "codegen", **{**BEFORE_LLAMA, "num_attention_heads": 4}, n_positions=128, rotary_dim=8)
bigcode = rows("GPTBigCodeConfig", "gpt_bigcode", **BEFORE_LLAMA, n_positions=128)
bloom = rows("BloomConfig", "bloom", **BEFORE_LLAMA, seq_length=128)
mpt = rows("MptConfig", "mpt", **BEFORE_LLAMA, max_seq_len=128)
falcon = rows("FalconConfig", "falcon", **{**BEFORE_LLAMA, **CONTEXT})


def as_published(path: Path) -> None:
    """4.57 saves a text model by itself under names that 5 does not read: with the whole's in every "model"."""
    file = path / "model.safetensors"
    wrong, right = b"per_layer_model.language_model_projection", b"per_layer_model_projection"
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].replace(wrong, right).ljust(size)
    file.write_bytes(data[:8] + header + data[8 + size :])


gemma3n = rows(
    "Gemma3nTextConfig", "gemma3n", num_hidden_layers=7, num_kv_shared_layers=3, sliding_window=12, laurel_rank=8,
    layer_types=["sliding_attention", "full_attention"] * 2 + ["sliding_attention"] * 2 + ["full_attention"],
    intermediate_size=[88, 72, 96, 64, 88, 80, 64], activation_sparsity_pattern=[0.95, 0.7, 0.0, 0.0, 0.6, 0.0, 0.0],
    vocab_size_per_layer_input=400, hidden_size_per_layer_input=24,
)  # fmt: skip

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
    deepseek_v2(""),
    deepseek_v2("groups", topk_method="group_limited_greedy", n_group=2, topk_group=1, q_lora_rank=40),
    deepseek_v2("scaling", routed_scaling_factor=16.0, rope_theta=5000.0, attention_bias=True),
    deepseek_v2("yarn", rope_scaling={**YARN, "mscale": 0.7, "mscale_all_dim": 1.2}, differs=SAME_SCALE),
    deepseek_v2("normalized", norm_topk_prob=True, refused="norm_topk_prob"),
    deepseek_v3(""),
    deepseek_v3("corrected", before=corrected, differs=LEFT_OUT),
    deepseek_v3("direct", q_lora_rank=None, n_group=1, topk_group=1, norm_topk_prob=False),
    deepseek_v3("halves", rope_interleave=False, attention_bias=True),
    deepseek_v3("yarn", rope_scaling={**YARN, "mscale": 0.7, "mscale_all_dim": 1.2}),
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
    phi("", partial_rotary_factor=1.0),
    phi("half", hidden_size=192, num_key_value_heads=2),
    phi("odd-tied", partial_rotary_factor=0.4, tie_word_embeddings=True, rope_theta=500.0),
    phi(
        "silent",
        without(CONFIG, "partial_rotary_factor", "hidden_act", "layer_norm_eps", "rope_theta", "rope_parameters"),
        hidden_size=192,
    ),
    phi("normed", qk_layernorm=True, refused="qk_layernorm"),
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
    gemma(""),
    gemma("biases-untied", attention_bias=True, tie_word_embeddings=False, rope_theta=5000.0),
    gemma("older-gelu", edited(CONFIG, hidden_act="gelu"), differs=EXACT_GELU),
    gemma2(""),
    gemma2("no-caps", attn_logit_softcapping=None, final_logit_softcapping=None),
    gemma2("theta", rope_theta=5000.0),
    gemma3n("", as_published),
    gemma3n(
        "own-keys",
        as_published,
        num_kv_shared_layers=0,
        altup_num_inputs=2,
        altup_active_idx=1,
        altup_correct_scale=False,
    ),
    gemma3n("pattern", as_published, layer_types=None, num_kv_shared_layers=2, activation_sparsity_pattern=None),
    gemma3n("short-table", as_published, vocab_size_per_layer_input=300, versions=("5",)),  # with which 4.57 fails
    gemma3n("linear", as_published, rope_scaling={"rope_type": "linear", "factor": 4.0}, tie_word_embeddings=False),
    gemma3n("thetas", as_published, rope_theta=3e5, rope_local_base_freq=500.0, attention_bias=True),
    gemma3(""),
    gemma3("linear", rope_scaling={"rope_type": "linear", "factor": 4.0}, head_dim=32),
    gemma3("thetas", rope_theta=3e5, rope_local_base_freq=500.0),
    gemma3("pattern", layer_types=["full_attention", "sliding_attention"] * 3),
    gemma3("cap", final_logit_softcapping=20.0),
    starcoder2(""),
    starcoder2("window", sliding_window=13, hidden_act="gelu"),
    starcoder2("untied-no-bias", use_bias=False, tie_word_embeddings=False),
    starcoder2("theta", rope_theta=1e5),
    smollm3(""),
    smollm3("window", no_rope_layers=[0, 1, 0], use_sliding_window=True, sliding_window=13, attention_bias=True),
    smollm3(
        "silent", without(CONFIG, "no_rope_layers", "no_rope_layer_interval", "layer_types"), no_rope_layer_interval=4
    ),
    smollm3("odd-list", edited(CONFIG, no_rope_layers=[1, 0]), refused="no_rope_layers is"),
    olmo(""),
    olmo("clipped-tied", clip_qkv=0.7, tie_word_embeddings=True, attention_bias=True),
    olmo2(""),
    olmo2("biases-tied", attention_bias=True, tie_word_embeddings=True, rope_theta=500000.0),
    olmo3(""),
    olmo3("yarn", rope_scaling=YARN),
    olmo3("silent", without(CONFIG, "layer_types", "rms_norm_eps")),
    granite("", attention_bias=True, mlp_bias=True),
    granite("tied", tie_word_embeddings=True, residual_multiplier=1.0),
    granite("silent", without(CONFIG, *FACTORS), **dict.fromkeys(FACTORS, 1.0)),
    granite4("", tie_word_embeddings=True),
    granite4("no-rope", edited(CONFIG, position_embedding_type=None), position_embedding_type=...),
    granite4("older-names", renamed(CONFIG, layer_types="layers_block_type")),
    granite4("mamba", layer_types=HYBRID, mamba_proj_bias=True, position_embedding_type=None),
    granite4("mamba-silent", without(CONFIG, *MAMBA_DEFAULTS), layer_types=HYBRID),
    granite4("mamba-groups", layer_types=HYBRID, mamba_n_groups=3, mamba_d_state=20, differs=TOGETHER),
    granite4("mamba-small", layer_types=HYBRID, mamba_d_conv=2, mamba_conv_bias=False, mamba_d_state=5, mamba_expand=1),
    granite4("experts", layer_types=HYBRID, num_local_experts=5, num_experts_per_tok=2, intermediate_size=40),
    granite4("experts-alone", num_local_experts=5, num_experts_per_tok=2, intermediate_size=40),
    granite4("layers", edited(CONFIG, layer_types=["attention", "conv", "attention"]), refused="layer_types is"),
    granite4("alone", layer_types=["mamba"] * 3, refused="one of them at least with attention"),  # nor by transformers
    granite4("steps", edited(CONFIG, time_step_limit=[0.0, 0.1]), layer_types=HYBRID, refused="time_step_limit is"),
    bamba(""),
    bamba("biases", attention_bias=True, mlp_bias=True, mamba_proj_bias=True, mamba_conv_bias=False, mamba_d_conv=3),
    bamba("groups", mamba_n_groups=3, mamba_d_state=20, tie_word_embeddings=True, differs=TOGETHER),
    bamba("silent", without(CONFIG, *MAMBA_DEFAULTS, "rms_norm_eps")),
    bamba("alone", edited(CONFIG, attn_layer_indices=None), refused="attn_layer_indices is None"),
    bamba("steps", edited(CONFIG, time_step_limit=[0.0, 0.1]), refused="time_step_limit is"),
    mamba2(""),
    mamba2("biases", use_bias=True, use_conv_bias=False, conv_kernel=2, layer_norm_epsilon=1e-3),
    mamba2("wide", expand=3, num_heads=4, head_dim=36, hidden_act="gelu", residual_in_fp32=False),
    mamba2("groups", n_groups=3, differs=TOGETHER),
    mamba2("tied", tie_word_embeddings=True, versions=("5",)),  # which 4.57 cannot save
    mamba2("silent", without(CONFIG, "expand", "conv_kernel", "use_conv_bias", "hidden_act", "time_step_limit")),
    mamba2("steps", edited(CONFIG, time_step_limit=[0.0, 0.1]), refused="time_step_limit is"),
    mamba2("heads", edited(CONFIG, head_dim=8), refused="6 heads of 8 channels are not expand times hidden_size, 96"),
    lfm2(""),
    lfm2("biases", conv_bias=True, conv_L_cache=4, tie_word_embeddings=False),
    lfm2("whole-mlp", block_auto_adjust_ff_dim=False),
    lfm2("wide-mlp", block_ffn_dim_multiplier=1.3),
    lfm2("theta", rope_theta=5e4, norm_eps=1e-3),
    lfm2("indices", edited(CONFIG, layer_types=None, full_attn_idxs=[1])),
    lfm2("older-names", renamed(CONFIG, intermediate_size="block_ff_dim", tie_word_embeddings="tie_embedding")),
    lfm2("mamba", edited(CONFIG, layer_types=["conv", "full_attention", "mamba"]), refused="layer_types is"),
    lfm2("no-attention", edited(CONFIG, layer_types=["conv"] * 3), refused="no layer has attention"),
    lfm2("another-theta", edited(CONFIG, theta=77.0), refused="theta is 77.0"),
    stablelm(""),
    stablelm("parallel", use_parallel_residual=True, use_qkv_bias=True, partial_rotary_factor=0.5),
    stablelm("normed", qk_layernorm=True, num_key_value_heads=3, versions=("5",)),
    opt(""),
    opt("no-bias", enable_bias=False, tie_word_embeddings=False, activation_function="gelu"),
    opt("behind", do_layer_norm_before=False, refused="do_layer_norm_before"),
    opt("projected", word_embed_proj_dim=48, refused="word_embed_proj_dim"),
    gpt_neo(""),
    gpt_neo("silent", without(CONFIG, "activation_function", "layer_norm_epsilon", "intermediate_size")),
    gpt_neo(
        "other", edited(CONFIG, attention_types=[[["global", "near"], 1], [["global"], 1]]), refused="attention_types"
    ),
    gptj(""),
    gptj("odd-tied", rotary_dim=6, tie_word_embeddings=True, n_inner=72),
    codegen(""),
    codegen("whole", rotary_dim=24),
    bigcode(""),
    bigcode("heads", multi_query=False, scale_attn_weights=False, n_inner=72, activation_function="gelu"),
    bloom(""),
    bloom("n-embed", renamed(CONFIG, hidden_size="n_embed")),
    bloom("behind", apply_residual_connection_post_layernorm=True, refused="apply_residual"),
    mpt(""),
    mpt("clipped", num_attention_heads=4, attn_config={"clip_qkv": 0.6, "softmax_scale": 0.3}),
    mpt("slopes", attn_config={"alibi_bias_max": 4}, refused="alibi_bias_max"),
    falcon(""),
    falcon("new", new_decoder_architecture=True, num_kv_heads=2, tie_word_embeddings=False),
    falcon("new-one-norm", new_decoder_architecture=True, num_kv_heads=3, num_ln_in_parallel_attn=1, bias=True),
    falcon("alibi", alibi=True, multi_query=False, parallel_attn=False, bias=True),
    falcon("many-heads", multi_query=False, parallel_attn=False, rope_theta=500.0),
    glm(""),
    glm("whole-heads", partial_rotary_factor=1.0, attention_bias=False),
    glm("theta", rope_theta=1e6),
    glm4(""),
    cohere("", logit_scale=0.25),
    cohere("normed", use_qk_norm=True, attention_bias=True, tie_word_embeddings=False),
    cohere2(""),
    cohere2("pattern", layer_types=["full_attention", "sliding_attention", "full_attention"]),
    exaone4(""),
    exaone4("llama3", rope_scaling=LLAMA3, rope_theta=1e6),
    ernie4_5(""),
    ernie4_5("biases", use_bias=True, tie_word_embeddings=False, rope_theta=1e4),
    hunyuan(""),
    hunyuan("alpha", rope_scaling={"type": "dynamic", "alpha": 50.0, "factor": 1.0}, attention_bias=True),
    nemotron(""),
    nemotron("biases", attention_bias=True, mlp_bias=True, partial_rotary_factor=1.0),
    helium(""),
    helium("biases", attention_bias=True, mlp_bias=True),
    arcee(""),
    arcee("yarn", rope_scaling=YARN, attention_bias=True, mlp_bias=True),
    seed_oss(""),
    seed_oss("biases", attention_out_bias=True, mlp_bias=True, attention_bias=False),
    apertus(""),
    apertus("plain-rope", rope_scaling={"rope_type": "default"}, rope_theta=1e4),
    bitnet(""),
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
