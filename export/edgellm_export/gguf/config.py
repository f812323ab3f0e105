"""GGUF metadata to the config.json that Hugging Face has for the same model."""

from __future__ import annotations

from collections.abc import Callable

from edgellm.errors import CheckpointError, UnsupportedModelError, nearest
from edgellm_export.gguf.classic_config import bloom, falcon, gpt2, gptneox, mpt, starcoder
from edgellm_export.gguf.decoder_config import EPS, attention_bias, biases, decoder, has_bias, layer_kinds
from edgellm_export.gguf.encoder_config import bert_config, modernbert_config, nomic_config
from edgellm_export.gguf.gemma3n_config import gemma3n
from edgellm_export.gguf.ids import kind_of
from edgellm_export.gguf.keys import Config, Keys, layer_count
from edgellm_export.gguf.latent_config import deepseek, magnitudes
from edgellm_export.gguf.mixture_config import (
    gpt_oss,
    granitemoe,
    mixtral,
    olmoe,
    phimoe,
    qwen2_moe,
    qwen3_moe,
)
from edgellm_export.gguf.reader import GgufFile
from edgellm_export.gguf.rope import rope_scaling
from edgellm_export.gguf.state_config import granite_hybrid, mamba2
from edgellm_export.gguf.t5_config import t5_config

MAMBA = ("conv_kernel", "state_size", "group_count", "inner_size", "time_step_rank")


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
        config["rope_scaling"] |= magnitudes(keys)
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


def _llama(keys: Keys) -> Config:
    if keys.get("expert_count"):
        return mixtral(keys)
    window = keys.get("attention.sliding_window") and keys.integer("attention.sliding_window")
    model_type, class_name = ("mistral", "MistralForCausalLM") if window else ("llama", "LlamaForCausalLM")
    config = decoder(keys, model_type, class_name)
    if window:
        return config | {"sliding_window": window}
    return config | biases(keys)


def _qwen2(keys: Keys) -> Config:
    return decoder(keys, "qwen2", "Qwen2ForCausalLM") | {"use_sliding_window": False}


def _qwen3(keys: Keys) -> Config:
    config = decoder(keys, "qwen3", "Qwen3ForCausalLM")
    return config | {"attention_bias": has_bias(keys, "attn_q"), "use_sliding_window": False}


def _phi3(keys: Keys) -> Config:
    config = decoder(keys, "phi3", "Phi3ForCausalLM")
    return config | {
        "sliding_window": keys.integer("attention.sliding_window", 0) or None,
        "original_max_position_embeddings": keys.integer(
            "rope.scaling.original_context_length", config["max_position_embeddings"]
        ),
    }


def _smollm3(keys: Keys) -> Config:
    """Which layers are not rotated is llama.cpp's rule; files do not hold it."""
    config = decoder(keys, "smollm3", "SmolLM3ForCausalLM")
    return config | attention_bias(keys) | {"no_rope_layer_interval": 4, "mlp_bias": has_bias(keys, "ffn_up")}


def _olmo(keys: Keys) -> Config:
    config = decoder(keys, "olmo", "OlmoForCausalLM", norm=EPS)
    keys.must_be(EPS, 1e-5)
    del config["rms_norm_eps"]
    return config | {"clip_qkv": keys.number("attention.clamp_kqv", 0.0) or None}


def _olmo2(keys: Keys) -> Config:
    """With a sliding window it is OLMo 3."""
    window = keys.integer("attention.sliding_window", 0)
    if not window:
        return decoder(keys, "olmo2", "Olmo2ForCausalLM")
    config = decoder(keys, "olmo3", "Olmo3ForCausalLM")
    keys.must_be("rope.freq_base_swa", config["rope_theta"])
    every, layers = keys.integer("attention.sliding_window_pattern", 4), config["num_hidden_layers"]
    kinds = ["sliding_attention" if (layer + 1) % every else "full_attention" for layer in range(layers)]
    return config | {"sliding_window": window, "layer_types": kinds}


def _granite(keys: Keys) -> Config:
    """Granite 4 without Mamba and experts is written as such, with the sizes of what it has not."""
    for size in MAMBA:
        keys.get(f"ssm.{size}")
    keys.get("expert_shared_feed_forward_length")
    config = decoder(keys, "granite", "GraniteForCausalLM", scale=keys.get("attention.scale"))
    keys.must_be("rope.scaling.finetuned", True)  # how this architecture says that it has a rope
    return (
        config
        | attention_bias(keys)
        | {
            "mlp_bias": has_bias(keys, "ffn_up"),
            "attention_multiplier": keys.number("attention.scale", config["head_dim"] ** -0.5),
            "embedding_multiplier": keys.number("embedding_scale", 1.0),
            "residual_multiplier": keys.number("residual_scale", 1.0),
            "logits_scaling": keys.number("logit_scale"),
        }
    )


def _granite_hybrid(keys: Keys) -> Config:
    """Granite 4, perhaps without any of what it may have besides."""
    has_more = any(".ssm_" in name or "_exps." in name for name in keys.file.tensors)
    return granite_hybrid(keys) if has_more else _granite(keys)


def _stablelm(keys: Keys) -> Config:
    """Blocks are side by side where the second one has no norm, whatever `use_parallel_residual` says."""
    keys.get("use_parallel_residual")
    return _partly_rotated(keys, "stablelm", "StableLmForCausalLM") | {
        "use_qkv_bias": has_bias(keys, "attn_q"),
        "use_parallel_residual": "blk.0.ffn_norm.weight" not in keys.file.tensors,
    }


def _phi2(keys: Keys) -> Config:
    return _partly_rotated(keys, "phi", "PhiForCausalLM") | {"hidden_act": "gelu_new"}


def _partly_rotated(keys: Keys, model_type: str, class_name: str) -> Config:
    """Of families with LayerNorms, a part of each head rotated, and heads of the usual size."""
    config = {"partial_rotary_factor": 1.0} | decoder(keys, model_type, class_name, norm=EPS)
    config["layer_norm_eps"] = config.pop("rms_norm_eps")
    return config


def _gemma1(keys: Keys) -> Config:
    return decoder(keys, "gemma", "GemmaForCausalLM") | {"hidden_act": "gelu_pytorch_tanh"}


def _gemma(keys: Keys, version: int, pattern: int, wide_layers: int) -> Config:
    """Every `pattern`-th layer attends to all, the others to a window; the rule is llama.cpp's and Hugging Face's."""
    config = decoder(keys, "gemma2" if version == 2 else "gemma3_text", f"Gemma{version}ForCausalLM")
    config["hidden_activation"] = config.pop("hidden_act").replace("silu", "gelu_pytorch_tanh")
    layers = config["num_hidden_layers"]
    # GGUF does not hold the query scale; llama.cpp too tells the 27B models, which differ, by their layer count.
    by_head = config["hidden_size"] // config["num_attention_heads"]
    window = keys.integer("attention.sliding_window", 4096 if version == 2 else 0)
    kinds = layer_kinds(keys, layers, pattern)
    if not window:
        kinds, window = ["full_attention"] * layers, config["max_position_embeddings"]
    return config | {
        "query_pre_attn_scalar": by_head if layers == wide_layers else config["head_dim"],
        "sliding_window": window,
        "layer_types": kinds,
        "attention_bias": False,
    }


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


def _gemma_embedding(keys: Keys) -> Config:
    """The window is the checkpoint's, of which half is seen to either side; older files have that half, and one."""
    config = _gemma3(keys)
    window = config["sliding_window"]
    keys.must_be("attention.causal", False)
    if window % 2:
        raise UnsupportedModelError(
            f"{keys.file.path}: {keys.arch}.attention.sliding_window is {window}, half of which the model sees to "
            "either side; convert it again with a current llama.cpp, which writes the checkpoint's own"
        )
    for key in ("pooling_type", *(f"dense_{i}_feat_{side}" for i in (2, 3) for side in ("in", "out"))):
        keys.get(key)
    return config | {"architectures": ["Gemma3TextModel"], "use_bidirectional_attention": True}


def _starcoder2(keys: Keys) -> Config:
    config = decoder(keys, "starcoder2", "Starcoder2ForCausalLM", norm=EPS)
    config["norm_epsilon"] = config.pop("rms_norm_eps")
    return config | {
        "hidden_act": "gelu_pytorch_tanh",
        "use_bias": has_bias(keys, "attn_q"),
        "sliding_window": keys.integer("attention.sliding_window", 0) or None,
    }


def _apertus(keys: Keys) -> Config:
    return decoder(keys, "apertus", "ApertusForCausalLM") | {"hidden_act": "xielu", **attention_bias(keys)}


def _bitnet(keys: Keys) -> Config:
    config = decoder(keys, "bitnet", "BitNetForCausalLM")
    return config | {"hidden_act": _bitnet_activation(keys), **attention_bias(keys), "tie_word_embeddings": True}


def _bitnet_activation(keys: Keys) -> str:
    """Files from before there was a key for it are of the one with a SentencePiece tokenizer, or do not say."""
    given = keys.get("hidden_activation")
    if given is None and kind_of(keys.file) != "llama":
        raise UnsupportedModelError(
            f"{keys.file.path} does not say its activation ({keys.arch}.hidden_activation); convert it again with a "
            "current llama.cpp, or export the Hugging Face checkpoint that it was made from"
        )
    return "silu" if given is None else str(given)


def _qwen2_vl(keys: Keys) -> Config:
    """The model of text in Qwen2-VL and Qwen2.5-VL, Qwen2 itself: the sections of its rope have the same positions."""
    keys.get("rope.dimension_sections")
    return _qwen2(keys)


def _qwen3_vl(keys: Keys) -> Config:
    """As with Qwen2-VL; what its first layers get of images (`n_deepstack_layers`), texts have not."""
    for key in ("rope.dimension_sections", "n_deepstack_layers"):
        keys.get(key)
    return _qwen3(keys)


def _mistral3(keys: Keys) -> Config:
    return decoder(keys, "mistral", "MistralForCausalLM") | {"sliding_window": None}


def _arcee(keys: Keys) -> Config:
    return decoder(keys, "arcee", "ArceeForCausalLM") | {"hidden_act": "relu2", **biases(keys)}


def _cohere(keys: Keys) -> Config:
    config = decoder(keys, "cohere", "CohereForCausalLM", norm=EPS)
    config["layer_norm_eps"] = config.pop("rms_norm_eps")
    normed = "blk.0.attn_q_norm.weight" in keys.file.tensors
    scale, bias = keys.number("logit_scale"), has_bias(keys, "attn_q")
    return config | {"logit_scale": scale, "use_qk_norm": normed, "attention_bias": bias}


def _cohere2(keys: Keys) -> Config:
    config = _cohere(keys)
    return config | {
        "architectures": ["Cohere2ForCausalLM"],
        "model_type": "cohere2",
        "sliding_window": keys.integer("attention.sliding_window"),
        "layer_types": layer_kinds(keys, config["num_hidden_layers"], 4),
    }


def _ernie4_5(keys: Keys) -> Config:
    return decoder(keys, "ernie4_5", "Ernie4_5ForCausalLM") | {"use_bias": has_bias(keys, "attn_q", "ffn_gate")}


def _exaone4(keys: Keys) -> Config:
    config = decoder(keys, "exaone4", "Exaone4ForCausalLM")
    window, layers = keys.integer("attention.sliding_window", 0) or None, config["num_hidden_layers"]
    kinds = ["full_attention"] * layers if window is None else layer_kinds(keys, layers, 4)
    return config | {"sliding_window": window, "layer_types": kinds}


def _chatglm(keys: Keys) -> Config:
    config = decoder(keys, "glm", "GlmForCausalLM")
    return {"partial_rotary_factor": 1.0, **config, "attention_bias": has_bias(keys, "attn_q", "attn_qkv")}


def _glm4(keys: Keys) -> Config:
    config = decoder(keys, "glm4", "Glm4ForCausalLM")
    return {"partial_rotary_factor": 1.0, **config, "attention_bias": has_bias(keys, "attn_q")}


def _hunyuan(keys: Keys) -> Config:
    """The base of its rope is stretched already."""
    config = decoder(keys, "hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM")
    return config | {"attention_bias": has_bias(keys, "attn_q")}


def _lfm2(keys: Keys) -> Config:
    """Layers without key/value heads have a short convolution."""
    counts = keys.get("attention.head_count_kv")
    counts = counts if isinstance(counts, list) else [counts] * layer_count(keys)
    heads = {count for count in counts if count}
    if len(heads) != 1 or not all(type(count) is int for count in counts) or len(counts) != layer_count(keys):
        keys.problem(
            f"{keys.arch}.attention.head_count_kv is {counts}, expected a number for each layer, 0 or one other"
        )
    config = decoder(keys, "lfm2", "Lfm2ForCausalLM", kv_heads=next(iter(heads), 1))
    config["norm_eps"] = config.pop("rms_norm_eps")
    return config | {
        "layer_types": ["full_attention" if count else "conv" for count in counts],
        "conv_L_cache": keys.integer("shortconv.l_cache"),
        "conv_bias": any(name.endswith("shortconv.in_proj.bias") for name in keys.file.tensors),
        "block_auto_adjust_ff_dim": False,
    }


def _nemotron(keys: Keys) -> Config:
    config = decoder(keys, "nemotron", "NemotronForCausalLM", norm=EPS)
    config["norm_eps"] = config.pop("rms_norm_eps")
    return {"partial_rotary_factor": 1.0, **config, "hidden_act": "relu2", **biases(keys)}


def _seed_oss(keys: Keys) -> Config:
    own = {"attention_bias": has_bias(keys, "attn_q"), "attention_out_bias": has_bias(keys, "attn_output")}
    return decoder(keys, "seed_oss", "SeedOssForCausalLM") | {**biases(keys), **own}


FAMILIES: dict[str, Callable[[Keys], Config]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen2vl": _qwen2_vl,
    "qwen3": _qwen3,
    "qwen3vl": _qwen3_vl,
    "phi2": _phi2,
    "phi3": _phi3,
    "phimoe": phimoe,
    "smollm3": _smollm3,
    "olmo": _olmo,
    "olmo2": _olmo2,
    "granite": _granite,
    "granitehybrid": _granite_hybrid,
    "stablelm": _stablelm,
    "bloom": bloom,
    "starcoder": starcoder,
    "gemma": _gemma1,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gemma3n": gemma3n,
    "gemma-embedding": _gemma_embedding,
    "gpt2": gpt2,
    "gptneox": gptneox,
    "starcoder2": _starcoder2,
    "gpt-oss": gpt_oss,
    "granitemoe": granitemoe,
    "deepseek2": deepseek,
    "olmoe": olmoe,
    "qwen2moe": qwen2_moe,
    "qwen3moe": qwen3_moe,
    "apertus": _apertus,
    "arcee": _arcee,
    "bitnet": _bitnet,
    "chatglm": _chatglm,
    "cohere2": _cohere2,
    "command-r": _cohere,
    "ernie4_5": _ernie4_5,
    "exaone4": _exaone4,
    "falcon": falcon,
    "glm4": _glm4,
    "hunyuan-dense": _hunyuan,
    "mistral3": _mistral3,
    "mpt": mpt,
    "lfm2": _lfm2,
    "mamba2": mamba2,
    "nemotron": _nemotron,
    "seed_oss": _seed_oss,
    "bert": bert_config,
    "modern-bert": modernbert_config,
    "nomic-bert": nomic_config,
    "t5": t5_config,
}
ROTARY = FAMILIES.keys() - {"gpt2", "bert", "modern-bert", "nomic-bert", "t5", "bloom", "mpt", "starcoder", "mamba2"}
MIXTURES = {"deepseek2", "llama", "gpt-oss", "granitehybrid", "granitemoe", "olmoe", "phimoe", "qwen2moe", "qwen3moe"}
