"""GGUF metadata of models with state spaces (Mamba-2) to config.json."""

from __future__ import annotations

from edgellm.errors import UnsupportedModelError
from edgellm_export.gguf.decoder_config import RMS_EPS, decoder
from edgellm_export.gguf.keys import Config, Keys, layer_count


def mamba2(keys: Keys) -> Config:
    for key in ("context_length", "feed_forward_length", "attention.head_count"):  # none of which it has
        keys.get(key)
    hidden, state = keys.integer("embedding_length"), _state(keys)
    return {
        "architectures": ["Mamba2ForCausalLM"],
        "model_type": "mamba2",
        "hidden_size": hidden,
        "num_hidden_layers": layer_count(keys),
        "layer_norm_epsilon": keys.number(RMS_EPS),
        "hidden_act": "silu",
        "torch_dtype": "float32",
        "num_heads": state["heads"],
        "head_dim": state["channels"] // state["heads"],
        "expand": state["channels"] // hidden,
        "n_groups": state["groups"],
        "state_size": state["size"],
        "conv_kernel": state["kernel"],
        "use_conv_bias": "blk.0.ssm_conv1d.bias" in keys.file.tensors,
        "use_bias": "blk.0.ssm_in.bias" in keys.file.tensors,
    }


def granite_hybrid(keys: Keys) -> Config:
    """Layers without key/value heads have a state space."""
    if keys.get("attention.scale") is None:
        raise UnsupportedModelError(
            f"{keys.file.path} does not say how attention is scaled, as files of Bamba do not; edgellm takes "
            "only Granite 4's of this architecture: export the Hugging Face checkpoint that it was made from"
        )
    counts, state = keys.get("attention.head_count_kv"), _state(keys)
    counts = counts if isinstance(counts, list) else [counts] * layer_count(keys)
    heads = {count for count in counts if count}
    if len(heads) != 1 or not all(type(count) is int for count in counts) or len(counts) != layer_count(keys):
        keys.problem(
            f"{keys.arch}.attention.head_count_kv is {counts}, expected a number for each layer, 0 or one other"
        )
    scale, names = keys.number("attention.scale"), keys.file.tensors
    config = decoder(
        keys, "granitemoehybrid", "GraniteMoeHybridForCausalLM", scale=scale, kv_heads=max(heads, default=1)
    )
    experts, rotates = keys.integer("expert_count", 0), keys.get("rope.scaling.finetuned")
    shared = keys.integer("expert_shared_feed_forward_length", config["intermediate_size"])
    dense = names.get("blk.0.ffn_gate.weight")
    mamba = [name for name in names if ".ssm_" in name]
    return config | {
        "layer_types": ["attention" if count else "mamba" for count in counts],
        "position_embedding_type": None if rotates is False else "rope",
        "attention_multiplier": scale,
        "embedding_multiplier": keys.number("embedding_scale", 1.0),
        "residual_multiplier": keys.number("residual_scale", 1.0),
        "logits_scaling": keys.number("logit_scale", 1.0),
        "attention_bias": any(name.endswith("attn_q.bias") for name in names),
        "shared_intermediate_size": shared if dense is None else dense.shape[0],
        "num_local_experts": experts,
        "num_experts_per_tok": keys.integer("expert_used_count", 0),
        "mamba_n_heads": state["heads"],
        "mamba_d_head": state["channels"] // state["heads"],
        "mamba_expand": state["channels"] // config["hidden_size"],
        "mamba_n_groups": state["groups"],
        "mamba_d_state": state["size"],
        "mamba_d_conv": state["kernel"],
        "mamba_conv_bias": any(name.endswith("ssm_conv1d.bias") for name in mamba),
        "mamba_proj_bias": any(name.endswith("ssm_in.bias") for name in mamba),
    }


def _state(keys: Keys) -> dict[str, int]:
    names = {
        "kernel": "conv_kernel", "size": "state_size", "groups": "group_count", "channels": "inner_size",
        "heads": "time_step_rank",
    }  # fmt: skip
    return {name: keys.integer(f"ssm.{key}") for name, key in names.items()}
