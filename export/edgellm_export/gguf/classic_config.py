"""GGUF metadata of decoders as they were before Llama to config.json."""

from __future__ import annotations

from edgellm.errors import UnsupportedModelError
from edgellm_export.gguf.decoder_config import EPS, causal, has_bias
from edgellm_export.gguf.keys import Config, Keys, check_heads, layer_count

ALIBI = 8.0  # the largest exponent of its slopes


def gpt2(keys: Keys) -> Config:
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    causal(keys)
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


def starcoder(keys: Keys) -> Config:
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    causal(keys)
    check_heads(keys, 1, max(hidden // heads, 1))
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


def bloom(keys: Keys) -> Config:
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    causal(keys)
    check_heads(keys, heads, max(hidden // heads, 1))
    keys.must_be("feed_forward_length", 4 * hidden)
    keys.must_be("attention.max_alibi_bias", ALIBI)
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


def gptneox(keys: Keys) -> Config:
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    head_dim = max(hidden // heads, 1)
    if hidden % heads:
        keys.problem(f"{keys.arch}.embedding_length is {hidden}, expected a multiple of the {heads} heads")
    rotary = keys.integer("rope.dimension_count", head_dim)
    causal(keys)
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
        "attention_bias": has_bias(keys, "attn_qkv"),
        "hidden_act": "gelu",
        "torch_dtype": "float32",
    }


def falcon(keys: Keys) -> Config:
    """With one head of keys and values it is as in Falcon 7B, otherwise as in 40B, whose norms may be two."""
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    head_dim, kv_heads = max(hidden // heads, 1), keys.integer("attention.head_count_kv", heads)
    causal(keys)
    check_heads(keys, kv_heads, head_dim)
    keys.must_be("rope.dimension_count", 0, head_dim)
    two_norms = "blk.0.attn_norm_2.weight" in keys.file.tensors
    new = two_norms or kv_heads > 1
    if new and not two_norms and keys.get("rope.freq_base") is None:
        raise UnsupportedModelError(
            f"{keys.file.path} is shaped as Falcon 2, the base of whose rope conversion to GGUF leaves out; export the "
            "Hugging Face checkpoint that it was made from"
        )
    return {
        "architectures": ["FalconForCausalLM"],
        "model_type": "falcon",
        "hidden_size": hidden,
        "num_hidden_layers": layer_count(keys),
        "num_attention_heads": heads,
        "ffn_hidden_size": keys.integer("feed_forward_length"),
        "max_position_embeddings": keys.integer("context_length"),
        "layer_norm_epsilon": keys.number(EPS),
        "rope_theta": keys.number("rope.freq_base", 10000.0),
        "new_decoder_architecture": new,
        **({"num_kv_heads": kv_heads, "num_ln_in_parallel_attn": 2 if two_norms else 1} if new else {}),
        "multi_query": True,
        "parallel_attn": True,
        "alibi": False,
        "bias": False,
        "activation": "gelu",
        "torch_dtype": "float32",
    }


def mpt(keys: Keys) -> Config:
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    causal(keys)
    check_heads(keys, heads, max(hidden // heads, 1))
    keys.must_be("feed_forward_length", 4 * hidden)
    slope = keys.get("attention.max_alibi_bias")
    if slope != ALIBI:
        raise UnsupportedModelError(
            f"{keys.file.path}: {keys.arch}.attention.max_alibi_bias is {slope!r}; edgellm builds this architecture "
            f"only with positions by ALiBi, and {ALIBI}"
        )
    clip = keys.number("attention.clamp_kqv", 0.0) or None
    return {
        "architectures": ["MptForCausalLM"],
        "model_type": "mpt",
        "d_model": hidden,
        "n_layers": layer_count(keys),
        "n_heads": heads,
        "expansion_ratio": 4,
        "max_seq_len": keys.integer("context_length"),
        "layer_norm_epsilon": keys.number(EPS),
        "attn_config": {"alibi": True, "alibi_bias_max": int(ALIBI), "clip_qkv": clip},
        "no_bias": True,
        "torch_dtype": "float32",
    }
