"""GGUF metadata to the config.json that Hugging Face has for the same model."""

from __future__ import annotations

from collections.abc import Callable

from edgellm.errors import CheckpointError, UnsupportedModelError, nearest
from edgellm_export.gguf.encoder_config import bert_config, t5_config
from edgellm_export.gguf.keys import Config, Keys, check_heads, layer_count
from edgellm_export.gguf.reader import GgufFile
from edgellm_export.gguf.rope import rope_scaling

SOFTMAX, SIGMOID = 1, 2  # of the scores of experts
RMS_EPS, EPS = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"


def translate_config(file: GgufFile, arch: str) -> Config:
    """The config.json that the file stands for, without token ids. Raises UnsupportedModelError or CheckpointError."""
    if arch not in FAMILIES:
        raise UnsupportedModelError(_unknown(file, arch))
    keys = Keys(file, arch)
    if arch not in MIXTURES and keys.get("expert_count"):
        raise UnsupportedModelError(
            f"{file.path} is a mixture of experts, and edgellm builds only dense models of this architecture; use one, "
            "or llama.cpp itself"
        )
    config = FAMILIES[arch](keys)
    if arch in ROTARY:
        config |= _scaling(keys, config)
    if arch == "deepseek2" and config.get("rope_scaling"):
        config["rope_scaling"] |= _magnitudes(keys)
    if arch == "gpt-oss" and config["rope_scaling"]:
        config["rope_scaling"] |= {"truncate": False}
    config["tie_word_embeddings"] = config.get("tie_word_embeddings", "output.weight" not in file.tensors)
    config["vocab_size"] = _vocab_size(file)
    keys.check()
    return config


def _scaling(keys: Keys, config: Config) -> Config:
    head_dim = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    share = config.get("rotary_pct", config.get("partial_rotary_factor", 1))
    theta = config["rotary_emb_base" if "rotary_emb_base" in config else "rope_theta"]
    return rope_scaling(keys, theta, round(head_dim * share), config["max_position_embeddings"])


def _unknown(file: GgufFile, arch: str) -> str:
    """Why an architecture is refused, and what would work."""
    origin = file.fact("general.source.repo_url") or file.fact("general.base_model.0.repo_url")
    named = f" ({origin})" if isinstance(origin, str) else ""
    return (
        f"{file.path} has architecture {arch!r}; {nearest(arch, FAMILIES)}; or export the Hugging Face checkpoint that "
        f"it was made from{named}, with --via optimum where edgellm has no such family"
    )


def _vocab_size(file: GgufFile) -> int:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(f"{file.path} has no token embedding (token_embd.weight); is it a language model?")
    return embedding.shape[0]


def _decoder(
    keys: Keys, model_type: str, class_name: str, norm: str = "attention.layer_norm_rms_epsilon",
    scale: float | None = None, kv_heads: int | None = None,
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
    _causal(keys)
    return config


def _causal(keys: Keys) -> None:
    """Refuse what makes another model of a decoder's tensors."""
    keys.must_be("attention.causal", True)
    if keys.get("pooling_type"):
        raise UnsupportedModelError(
            f"{keys.file.path} is an embedding model made of a decoder ({keys.arch}.pooling_type is "
            f"{keys.get('pooling_type')}), which edgellm does not build; for embeddings it takes encoders such as BERT"
        )


def _has_bias(keys: Keys, *parts: str) -> bool:
    return any(f"blk.0.{part}.bias" in keys.file.tensors for part in parts)


def _llama(keys: Keys) -> Config:
    if keys.get("expert_count"):
        return _mixtral(keys)
    window = keys.get("attention.sliding_window") and keys.integer("attention.sliding_window")
    model_type, class_name = ("mistral", "MistralForCausalLM") if window else ("llama", "LlamaForCausalLM")
    config = _decoder(keys, model_type, class_name)
    if window:
        return config | {"sliding_window": window}
    return config | _biases(keys)


def _experts(keys: Keys, count: str) -> Config:
    """`count`: config.json's key of how many there are."""
    return {count: keys.integer("expert_count"), "num_experts_per_tok": keys.integer("expert_used_count")}


def _mixtral(keys: Keys) -> Config:
    config = _decoder(keys, "mixtral", "MixtralForCausalLM") | _experts(keys, "num_local_experts")
    return config | {"sliding_window": keys.integer("attention.sliding_window", 0) or None}


def _qwen2_moe(keys: Keys) -> Config:
    config = _decoder(keys, "qwen2_moe", "Qwen2MoeForCausalLM") | _experts(keys, "num_experts")
    return config | {
        "moe_intermediate_size": keys.integer("expert_feed_forward_length"),
        "shared_expert_intermediate_size": keys.integer("expert_shared_feed_forward_length"),
        "norm_topk_prob": False,
        "qkv_bias": _has_bias(keys, "attn_q"),
    }


def _qwen3_moe(keys: Keys) -> Config:
    config = _decoder(keys, "qwen3_moe", "Qwen3MoeForCausalLM") | _experts(keys, "num_experts")
    return config | {
        "moe_intermediate_size": keys.integer("expert_feed_forward_length"),
        "norm_topk_prob": True,
        "attention_bias": _has_bias(keys, "attn_q"),
    }


def _deepseek(keys: Keys) -> Config:
    """DeepSeek-V2, or V3 where experts are chosen by sigmoids. Older files have the heads' own sizes in the place of
    those of the one that is cached."""
    corrected = keys.get("expert_gating_func") == SIGMOID
    number, letters = ("3", "deepseek_v3") if corrected else ("2", "deepseek_v2")
    keys.must_be("expert_gating_func", 0, SOFTMAX, SIGMOID)
    heads, rank = keys.integer("attention.head_count"), keys.integer("attention.kv_lora_rank")
    rotated = keys.integer("rope.dimension_count")
    key, value = (
        keys.integer(f"attention.{side}_length_mla", keys.integer(f"attention.{side}_length"))
        for side in ("key", "value")
    )
    keys.must_be("attention.head_count_kv", 1, heads)
    keys.must_be("attention.key_length", key, rank + rotated)
    keys.must_be("attention.value_length", value, rank)
    keys.must_be("attention.scale", 0, key**-0.5)
    _causal(keys)
    groups = keys.integer("expert_group_count", 1)
    config: Config = {
        "architectures": [f"DeepseekV{number}ForCausalLM"],
        "model_type": letters,
        "hidden_size": keys.integer("embedding_length"),
        "num_hidden_layers": layer_count(keys),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": rotated,
        "intermediate_size": keys.integer("feed_forward_length"),
        "max_position_embeddings": keys.integer("context_length"),
        "rms_norm_eps": keys.number(RMS_EPS),
        "rope_theta": keys.number("rope.freq_base", 10000.0),
        "hidden_act": "silu",
        "torch_dtype": "float32",
        "kv_lora_rank": rank,
        "q_lora_rank": keys.integer("attention.q_lora_rank", 0) or None,
        "qk_nope_head_dim": max(key - rotated, 1),
        "qk_rope_head_dim": rotated,
        "v_head_dim": value,
        "first_k_dense_replace": keys.integer("leading_dense_block_count", 0),
        "moe_intermediate_size": keys.integer("expert_feed_forward_length"),
        "n_shared_experts": keys.integer("expert_shared_count", 0) or None,
        "routed_scaling_factor": keys.number("expert_weights_scale", 1.0),
        "norm_topk_prob": bool(keys.get("expert_weights_norm")),
        "n_group": groups,
        "topk_group": keys.integer("expert_group_used_count", 1),
        "rope_interleave": True,
        "attention_bias": _has_bias(keys, "attn_kv_a_mqa", "attn_output"),
    }
    if not corrected:
        config["topk_method"] = "greedy" if groups == 1 else "group_limited_greedy"
    return config | _experts(keys, "n_routed_experts")


def _magnitudes(keys: Keys) -> Config:
    """Of DeepSeek's yarn: a tenth is in the file, for tables and queries alike."""
    weight = round(10 * keys.number("rope.scaling.yarn_log_multiplier", 0.0), 6)  # which was a decimal
    return {"mscale": weight, "mscale_all_dim": weight} if weight else {}


def _olmoe(keys: Keys) -> Config:
    return _decoder(keys, "olmoe", "OlmoeForCausalLM") | _experts(keys, "num_experts") | {"norm_topk_prob": False}


def _gpt_oss(keys: Keys) -> Config:
    """The ramp of its yarn does not end at whole channels, which llama.cpp does not know of."""
    config = _decoder(keys, "gpt_oss", "GptOssForCausalLM") | _experts(keys, "num_local_experts")
    return config | {
        "intermediate_size": keys.integer("expert_feed_forward_length", config["intermediate_size"]),
        "sliding_window": keys.integer("attention.sliding_window"),
        "rope_scaling": None,
    }


def _granitemoe(keys: Keys) -> Config:
    scale = keys.number("attention.scale")
    config = _decoder(keys, "granitemoe", "GraniteMoeForCausalLM", scale=scale)
    return (
        config
        | _experts(keys, "num_local_experts")
        | {
            "attention_multiplier": scale,
            "embedding_multiplier": keys.number("embedding_scale", 1.0),
            "residual_multiplier": keys.number("residual_scale", 1.0),
            "logits_scaling": keys.number("logit_scale", 1.0),
            "attention_bias": _has_bias(keys, "attn_q"),
        }
    )


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


def _attention_bias(keys: Keys) -> Config:
    return {"attention_bias": _has_bias(keys, "attn_q", "attn_k", "attn_v", "attn_output")}


def _smollm3(keys: Keys) -> Config:
    """Which layers are not rotated is llama.cpp's rule; files do not hold it."""
    config = _decoder(keys, "smollm3", "SmolLM3ForCausalLM")
    return config | _attention_bias(keys) | {"no_rope_layer_interval": 4, "mlp_bias": _has_bias(keys, "ffn_up")}


def _olmo(keys: Keys) -> Config:
    config = _decoder(keys, "olmo", "OlmoForCausalLM", norm=EPS)
    keys.must_be(EPS, 1e-5)
    del config["rms_norm_eps"]
    return config | {"clip_qkv": keys.number("attention.clamp_kqv", 0.0) or None}


def _olmo2(keys: Keys) -> Config:
    """With a sliding window it is OLMo 3."""
    window = keys.integer("attention.sliding_window", 0)
    if not window:
        return _decoder(keys, "olmo2", "Olmo2ForCausalLM")
    config = _decoder(keys, "olmo3", "Olmo3ForCausalLM")
    keys.must_be("rope.freq_base_swa", config["rope_theta"])
    every, layers = keys.integer("attention.sliding_window_pattern", 4), config["num_hidden_layers"]
    kinds = ["sliding_attention" if (layer + 1) % every else "full_attention" for layer in range(layers)]
    return config | {"sliding_window": window, "layer_types": kinds}


def _granite(keys: Keys) -> Config:
    config = _decoder(keys, "granite", "GraniteForCausalLM", scale=keys.get("attention.scale"))
    keys.must_be("rope.scaling.finetuned", True)  # how this architecture says that it has a rope
    return (
        config
        | _attention_bias(keys)
        | {
            "mlp_bias": _has_bias(keys, "ffn_up"),
            "attention_multiplier": keys.number("attention.scale", config["head_dim"] ** -0.5),
            "embedding_multiplier": keys.number("embedding_scale", 1.0),
            "residual_multiplier": keys.number("residual_scale", 1.0),
            "logits_scaling": keys.number("logit_scale"),
        }
    )


def _stablelm(keys: Keys) -> Config:
    """Blocks are side by side where the second one has no norm, whatever `use_parallel_residual` says."""
    keys.get("use_parallel_residual")
    return _partly_rotated(keys, "stablelm", "StableLmForCausalLM") | {
        "use_qkv_bias": _has_bias(keys, "attn_q"),
        "use_parallel_residual": "blk.0.ffn_norm.weight" not in keys.file.tensors,
    }


def _phi2(keys: Keys) -> Config:
    return _partly_rotated(keys, "phi", "PhiForCausalLM") | {"hidden_act": "gelu_new"}


def _partly_rotated(keys: Keys, model_type: str, class_name: str) -> Config:
    """Of families with LayerNorms, a part of each head rotated, and heads of the usual size."""
    config = {"partial_rotary_factor": 1.0} | _decoder(keys, model_type, class_name, norm=EPS)
    config["layer_norm_eps"] = config.pop("rms_norm_eps")
    return config


def _gemma1(keys: Keys) -> Config:
    return _decoder(keys, "gemma", "GemmaForCausalLM") | {"hidden_act": "gelu_pytorch_tanh"}


def _gemma(keys: Keys, version: int, pattern: int, wide_layers: int) -> Config:
    """Every `pattern`-th layer attends to all, the others to a window; the rule is llama.cpp's and Hugging Face's."""
    config = _decoder(keys, "gemma2" if version == 2 else "gemma3_text", f"Gemma{version}ForCausalLM")
    config["hidden_activation"] = config.pop("hidden_act").replace("silu", "gelu_pytorch_tanh")
    layers = config["num_hidden_layers"]
    # GGUF does not hold the query scale; llama.cpp too tells the 27B models, which differ, by their layer count.
    by_head = config["hidden_size"] // config["num_attention_heads"]
    window, kinds = keys.integer("attention.sliding_window", 4096 if version == 2 else 0), _kinds(keys, layers, pattern)
    if not window:
        kinds, window = ["full_attention"] * layers, config["max_position_embeddings"]
    return config | {
        "query_pre_attn_scalar": by_head if layers == wide_layers else config["head_dim"],
        "sliding_window": window,
        "layer_types": kinds,
        "attention_bias": False,
    }


def _kinds(keys: Keys, layers: int, pattern: int) -> list[str]:
    """Each layer's kind where there are windows: all but every `pattern`-th have one, if the file says nothing else."""
    stored = keys.get("attention.sliding_window_pattern")
    if isinstance(stored, list):
        slides = [bool(slide) for slide in stored]
    else:
        every = keys.integer("attention.sliding_window_pattern", pattern)
        slides = [bool((layer + 1) % every) for layer in range(layers)]
    return ["sliding_attention" if slide else "full_attention" for slide in slides]


def _gemma2(keys: Keys) -> Config:
    config = _gemma(keys, 2, pattern=2, wide_layers=46)
    keys.must_be("rope.freq_base_swa", config["rope_theta"])
    return config | {
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
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    _causal(keys)
    check_heads(keys, heads, max(hidden // heads, 1))
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": hidden,
        "n_layer": layer_count(keys),
        "n_head": heads,
        "n_inner": keys.integer("feed_forward_length"),
        "n_positions": keys.integer("context_length"),
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
        "torch_dtype": "float32",
    }


def _starcoder(keys: Keys) -> Config:
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    _causal(keys)
    keys.must_be("attention.head_count_kv", 1)
    for key in ("attention.key_length", "attention.value_length"):
        keys.must_be(key, 0, max(hidden // heads, 1))
    keys.must_be("attention.scale", 0, max(hidden // heads, 1) ** -0.5)
    return {
        "architectures": ["GPTBigCodeForCausalLM"],
        "model_type": "gpt_bigcode",
        "n_embd": hidden,
        "n_layer": layer_count(keys),
        "n_head": heads,
        "n_inner": keys.integer("feed_forward_length"),
        "n_positions": keys.integer("context_length"),
        "layer_norm_epsilon": keys.number(EPS),
        "activation_function": "gelu_pytorch_tanh",
        "multi_query": True,
        "torch_dtype": "float32",
    }


def _bloom(keys: Keys) -> Config:
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    _causal(keys)
    check_heads(keys, heads, max(hidden // heads, 1))
    keys.must_be("feed_forward_length", 4 * hidden)
    keys.must_be("attention.max_alibi_bias", 8.0)
    return {
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "hidden_size": hidden,
        "n_layer": layer_count(keys),
        "n_head": heads,
        "seq_length": keys.integer("context_length"),
        "layer_norm_epsilon": keys.number(EPS),
        "torch_dtype": "float32",
    }


def _gptneox(keys: Keys) -> Config:
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    head_dim = max(hidden // heads, 1)
    if hidden % heads:
        keys.problem(f"{keys.arch}.embedding_length is {hidden}, expected a multiple of the {heads} heads")
    rotary = keys.integer("rope.dimension_count", head_dim)
    _causal(keys)
    check_heads(keys, heads, head_dim)
    parallel = keys.get("use_parallel_residual")
    if not isinstance(parallel, bool):
        keys.problem(f"{keys.arch}.use_parallel_residual is {parallel!r}, expected true or false")
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_size": hidden,
        "num_hidden_layers": layer_count(keys),
        "num_attention_heads": heads,
        "intermediate_size": keys.integer("feed_forward_length"),
        "max_position_embeddings": keys.integer("context_length"),
        "layer_norm_eps": keys.number("attention.layer_norm_epsilon"),
        "rotary_pct": rotary / head_dim,
        "rotary_emb_base": keys.number("rope.freq_base", 10000.0),
        "use_parallel_residual": parallel is not False,
        "attention_bias": _has_bias(keys, "attn_qkv"),
        "hidden_act": "gelu",
        "torch_dtype": "float32",
    }


def _starcoder2(keys: Keys) -> Config:
    config = _decoder(keys, "starcoder2", "Starcoder2ForCausalLM", norm=EPS)
    config["norm_epsilon"] = config.pop("rms_norm_eps")
    return config | {
        "hidden_act": "gelu_pytorch_tanh",
        "use_bias": _has_bias(keys, "attn_q"),
        "sliding_window": keys.integer("attention.sliding_window", 0) or None,
    }


def _biases(keys: Keys) -> Config:
    return {
        "attention_bias": _has_bias(keys, "attn_q", "attn_k", "attn_v", "attn_output"),
        "mlp_bias": _has_bias(keys, "ffn_gate", "ffn_up", "ffn_down"),
    }


def _arcee(keys: Keys) -> Config:
    return _decoder(keys, "arcee", "ArceeForCausalLM") | {"hidden_act": "relu2", **_biases(keys)}


def _cohere(keys: Keys) -> Config:
    config = _decoder(keys, "cohere", "CohereForCausalLM", norm="attention.layer_norm_epsilon")
    config["layer_norm_eps"] = config.pop("rms_norm_eps")
    normed = "blk.0.attn_q_norm.weight" in keys.file.tensors
    scale, bias = keys.number("logit_scale"), _has_bias(keys, "attn_q")
    return config | {"logit_scale": scale, "use_qk_norm": normed, "attention_bias": bias}


def _cohere2(keys: Keys) -> Config:
    config = _cohere(keys)
    return config | {
        "architectures": ["Cohere2ForCausalLM"],
        "model_type": "cohere2",
        "sliding_window": keys.integer("attention.sliding_window"),
        "layer_types": _kinds(keys, config["num_hidden_layers"], 4),
    }


def _ernie4_5(keys: Keys) -> Config:
    return _decoder(keys, "ernie4_5", "Ernie4_5ForCausalLM") | {"use_bias": _has_bias(keys, "attn_q", "ffn_gate")}


def _exaone4(keys: Keys) -> Config:
    config = _decoder(keys, "exaone4", "Exaone4ForCausalLM")
    window, layers = keys.integer("attention.sliding_window", 0) or None, config["num_hidden_layers"]
    kinds = ["full_attention"] * layers if window is None else _kinds(keys, layers, 4)
    return config | {"sliding_window": window, "layer_types": kinds}


def _glm4(keys: Keys) -> Config:
    config = _decoder(keys, "glm4", "Glm4ForCausalLM")
    return {"partial_rotary_factor": 1.0, **config, "attention_bias": _has_bias(keys, "attn_q")}


def _hunyuan(keys: Keys) -> Config:
    """The base of its rope is stretched already."""
    config = _decoder(keys, "hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM")
    return config | {"attention_bias": _has_bias(keys, "attn_q")}


def _lfm2(keys: Keys) -> Config:
    """Layers without key/value heads have a short convolution."""
    counts = keys.get("attention.head_count_kv")
    counts = counts if isinstance(counts, list) else [counts] * layer_count(keys)
    heads = {count for count in counts if count}
    if len(heads) != 1 or not all(type(count) is int for count in counts) or len(counts) != layer_count(keys):
        keys.problem(
            f"{keys.arch}.attention.head_count_kv is {counts}, expected a number for each layer, 0 or one other"
        )
    config = _decoder(keys, "lfm2", "Lfm2ForCausalLM", kv_heads=next(iter(heads), 1))
    config["norm_eps"] = config.pop("rms_norm_eps")
    return config | {
        "layer_types": ["full_attention" if count else "conv" for count in counts],
        "conv_L_cache": keys.integer("shortconv.l_cache"),
        "conv_bias": any(name.endswith("shortconv.in_proj.bias") for name in keys.file.tensors),
        "block_auto_adjust_ff_dim": False,
    }


def _nemotron(keys: Keys) -> Config:
    config = _decoder(keys, "nemotron", "NemotronForCausalLM", norm="attention.layer_norm_epsilon")
    config["norm_eps"] = config.pop("rms_norm_eps")
    return {"partial_rotary_factor": 1.0, **config, "hidden_act": "relu2", **_biases(keys)}


def _seed_oss(keys: Keys) -> Config:
    own = {"attention_bias": _has_bias(keys, "attn_q"), "attention_out_bias": _has_bias(keys, "attn_output")}
    return _decoder(keys, "seed_oss", "SeedOssForCausalLM") | {**_biases(keys), **own}


FAMILIES: dict[str, Callable[[Keys], Config]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "phi2": _phi2,
    "phi3": _phi3,
    "smollm3": _smollm3,
    "olmo": _olmo,
    "olmo2": _olmo2,
    "granite": _granite,
    "stablelm": _stablelm,
    "bloom": _bloom,
    "starcoder": _starcoder,
    "gemma": _gemma1,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gpt2": _gpt2,
    "gptneox": _gptneox,
    "starcoder2": _starcoder2,
    "gpt-oss": _gpt_oss,
    "granitemoe": _granitemoe,
    "deepseek2": _deepseek,
    "olmoe": _olmoe,
    "qwen2moe": _qwen2_moe,
    "qwen3moe": _qwen3_moe,
    "arcee": _arcee,
    "cohere2": _cohere2,
    "command-r": _cohere,
    "ernie4_5": _ernie4_5,
    "exaone4": _exaone4,
    "glm4": _glm4,
    "hunyuan-dense": _hunyuan,
    "lfm2": _lfm2,
    "nemotron": _nemotron,
    "seed_oss": _seed_oss,
    "bert": bert_config,
    "t5": t5_config,
}
ROTARY = FAMILIES.keys() - {"gpt2", "bert", "t5", "bloom", "starcoder"}
MIXTURES = {"deepseek2", "llama", "gpt-oss", "granitemoe", "olmoe", "qwen2moe", "qwen3moe"}
