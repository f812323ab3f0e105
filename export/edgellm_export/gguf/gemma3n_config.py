"""The metadata of Gemma 3n, as config.json has it."""

from __future__ import annotations

from statistics import NormalDist

from edgellm_export.gguf.decoder_config import decoder, layer_kinds
from edgellm_export.gguf.keys import Config, Keys

OWN_KEYS = 20  # layers that have keys and values, where a file does not say how many have not


def gemma3n(keys: Keys) -> Config:
    """What a file does not say is so in llama.cpp for each."""
    config = decoder(keys, "gemma3n_text", "Gemma3nForCausalLM", scale=1.0)
    config["hidden_activation"] = config.pop("hidden_act").replace("silu", "gelu_pytorch_tanh")
    layers, shared = config["num_hidden_layers"], keys.get("attention.shared_kv_layers")
    return config | {
        "rope_theta": keys.number("rope.freq_base", 1_000_000.0),
        "rope_local_base_freq": keys.number("rope.freq_base_swa", 10000.0),
        "sliding_window": keys.integer("attention.sliding_window"),
        "layer_types": layer_kinds(keys, layers, 5),
        "final_logit_softcapping": keys.number("final_logit_softcapping", 30.0),
        "num_kv_shared_layers": max(layers - OWN_KEYS, 0) if shared is None else shared,
        "activation_sparsity_pattern": _sparsity(keys),
        "altup_num_inputs": keys.integer("altup.num_inputs", 4),
        "altup_active_idx": keys.get("altup.active_idx") or 0,
        "hidden_size_per_layer_input": keys.integer("embedding_length_per_layer_input", 256),
        "vocab_size_per_layer_input": _rows(keys, "per_layer_token_embd.weight"),
        "laurel_rank": _rows(keys, "blk.0.laurel_l.weight"),
    }


def _sparsity(keys: Keys) -> list[float] | None:
    """The shares that the file's standard deviations stand for, to as many digits as float32 tells apart."""
    scales = keys.get("activation_sparsity_scale")
    if scales is None:
        return None
    if not isinstance(scales, list) or not all(isinstance(each, int | float) for each in scales):
        keys.problem(f"{keys.arch}.activation_sparsity_scale is {scales!r}, expected a number for each layer")
        return None
    return [round(NormalDist().cdf(each), 6) for each in scales]


def _rows(keys: Keys, name: str) -> int:
    tensor = keys.file.tensors.get(name)
    if tensor is None:
        keys.problem(f"the tensor {name} is absent")
    return 1 if tensor is None else tensor.shape[0]
