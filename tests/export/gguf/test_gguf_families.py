"""Every family: a transformers model, stored by llama.cpp's conversion rules, must come back as it was."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto import CONFIG_MAPPING

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.gguf.rope import LLAMA3, llama3_factors
from edgellm_export.sources.opening import open_checkpoint
from gguf_files import Array, byte_level, write_gguf

VOCAB = 259
SHARED: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 50000.0,
}
GEMMA: dict[str, Any] = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 32, "tie_word_embeddings": True}
LLAMA3_SCALING = {"rope_type": "llama3", "factor": 8.0, **LLAMA3}
PHI3_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
# Name: Hugging Face model type, its config, further GGUF metadata.
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama", {"attention_bias": True, "head_dim": 24}, {"attention.key_length": 24}),
    "llama tied": ("llama", {"tie_word_embeddings": True, "mlp_bias": True}, {}),
    "llama 3": ("llama", {"rope_scaling": LLAMA3_SCALING, "head_dim": 64}, {"attention.key_length": 64}),
    "mistral": ("mistral", {"sliding_window": 48}, {"attention.sliding_window": 48}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}, {}),
    "qwen3": ("qwen3", {"head_dim": 32}, {"attention.key_length": 32}),
    "phi3": (
        "phi3",
        {"sliding_window": 64, "original_max_position_embeddings": 32, **PHI3_IDS},
        {"attention.sliding_window": 64, "rope.scaling.original_context_length": 32},
    ),
    "gemma2": (
        "gemma2",
        {**GEMMA, "rope_theta": 10000.0, "attn_logit_softcapping": 40.0, "final_logit_softcapping": 20.0},
        {"attention.sliding_window": 32, "attn_logit_softcapping": 40.0, "final_logit_softcapping": 20.0},
    ),
    "gemma3": (
        "gemma3_text",
        {**GEMMA, "rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {"attention.sliding_window": 32, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
    ),
}
ARCHES = {"mistral": "llama", "gemma3_text": "gemma3"}
# Keys whose values decide what the model computes, beside those of SHARED.
COMPARED = (
    "model_type", "tie_word_embeddings", "hidden_act", "hidden_activation", "attention_bias", "mlp_bias",
    "rope_scaling", "sliding_window", "layer_types", "query_pre_attn_scalar", "attn_logit_softcapping",
    "final_logit_softcapping", "rope_local_base_freq", "partial_rotary_factor", "use_sliding_window",
    "original_max_position_embeddings",
)  # fmt: skip


def to_gguf(
    name: str, tensor: Array, arch: str, config: PretrainedConfig, names: gguf.TensorNameMap
) -> dict[str, Array]:
    """One tensor as conversion/*.py of llama.cpp stores it."""
    stem, suffix = name.rsplit(".", 1)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(stem.split(".")[-1])
    if arch == "llama" and heads:
        shape = tensor.shape
        tensor = tensor.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
    if arch.startswith("gemma") and name.endswith("norm.weight"):
        tensor = tensor + 1
    return {f"{names.get_name(stem)}.{suffix}": tensor}


def save(path: Path, model: torch.nn.Module, arch: str, more: dict[str, Any]) -> Path:
    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], config.num_hidden_layers)
    tensors: dict[str, Array] = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        tensors |= to_gguf(name, value.numpy(), arch, config, names)
    metadata = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_theta,
        **({"attention.key_length": config.head_dim} if arch.startswith("gemma") else {}),
    }
    if (getattr(config, "rope_scaling", None) or {}).get("rope_type") == "llama3":
        tensors["rope_freqs.weight"] = conversion_factors(config)
    return write_gguf(path, arch, metadata | more | byte_level(), tensors)


def conversion_factors(config: PretrainedConfig) -> Array:
    """LlamaModel.generate_extra_tensors of llama.cpp's conversion."""
    factors = []
    for index in range(0, config.head_dim, 2):
        wavelength = 2 * math.pi * config.rope_theta ** (index / config.head_dim)
        if wavelength < 8192 / 4:
            factors.append(1.0)
        elif wavelength > 8192:
            factors.append(config.rope_scaling["factor"])
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            factors.append(1 / ((1 - smooth) / config.rope_scaling["factor"] + smooth))
    return np.array(factors, np.float32)


def build(family: str) -> tuple[torch.nn.Module, str, dict[str, Any]]:
    model_type, values, more = FAMILIES[family]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**{**SHARED, **values}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval(), ARCHES.get(model_type, model_type), more


@pytest.mark.parametrize("family", FAMILIES)
def test_config_and_tensors_come_back(tmp_path: Path, family: str) -> None:
    model, arch, more = build(family)
    checkpoint = open_checkpoint(str(save(tmp_path / "w.gguf", model, arch, more)))
    original = CONFIG_MAPPING[model.config.model_type](**checkpoint.config)
    for key in (*SHARED, *COMPARED):
        assert getattr(original, key, None) == getattr(model.config, key, None), key
    assert checkpoint.config["architectures"] == [type(model).__name__]

    expected = model.state_dict()
    if model.config.tie_word_embeddings:
        del expected["lm_head.weight"]
    assert set(checkpoint.tensors) == set(expected)
    for name, value in expected.items():
        tensor = checkpoint.tensors[name]
        assert tensor.shape == tuple(value.shape)
        np.testing.assert_allclose(tensor.rows(0, tensor.shape[0]), value.numpy(), rtol=0, atol=1e-6)


def test_gpt2_matrices_come_back_as_conv1d(tmp_path: Path) -> None:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 128}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING["gpt2"](vocab_size=VOCAB, **sizes))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 2)
    tensors = {}
    for name, value in model.state_dict().items():
        if name != "lm_head.weight":
            stem, suffix = name.rsplit(".", 1)
            turned = re.search(r"(c_attn|c_proj|c_fc)\.weight$", name)
            tensors[f"{names.get_name(stem)}.{suffix}"] = (value.T if turned else value).contiguous().numpy()
    metadata = {
        "block_count": 2,
        "context_length": 64,
        "embedding_length": 32,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.layer_norm_epsilon": 1e-5,
    }
    checkpoint = open_checkpoint(str(write_gguf(tmp_path / "w.gguf", "gpt2", metadata | byte_level(), tensors)))
    assert {key: checkpoint.config[key] for key in sizes} == sizes
    assert checkpoint.config["layer_norm_epsilon"] == 1e-5
    expected = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    assert set(checkpoint.tensors) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(checkpoint.tensors[name].rows(0, value.shape[0]), value.numpy())


def test_llama3_factors_are_those_of_transformers() -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = CONFIG_MAPPING["llama"](**{**SHARED, "head_dim": 64, "rope_scaling": LLAMA3_SCALING})
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain, _ = ROPE_INIT_FUNCTIONS["linear"](
        CONFIG_MAPPING["llama"](**{**SHARED, "head_dim": 64, "rope_scaling": {"rope_type": "linear", "factor": 1.0}}),
        "cpu",
    )
    factors = llama3_factors(LLAMA3_SCALING, config.rope_theta, 64)
    np.testing.assert_allclose(factors, (plain / scaled).numpy(), rtol=1e-5)


def small_llama(path: Path, metadata: dict[str, Any], tensors: dict[str, Array] | None = None) -> dict[str, Any]:
    from gguf_files import LLAMA, llama_tensors

    write_gguf(path, "llama", LLAMA | byte_level() | metadata, llama_tensors(VOCAB) | (tensors or {}))
    return dict(open_checkpoint(str(path)).config)


SCALINGS: dict[str, tuple[dict[str, Any], Any]] = {
    "none": ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, None),
    "factor one": ({"rope.scaling.type": "linear", "rope.scaling.factor": 1.0}, None),
    "linear": (
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        {"rope_type": "linear", "factor": 4.0},
    ),
    "old linear": ({"rope.scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
    "yarn": (
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    ),
}


@pytest.mark.parametrize("case", SCALINGS)
def test_rope_scaling(tmp_path: Path, case: str) -> None:
    metadata, expected = SCALINGS[case]
    assert small_llama(tmp_path / "w.gguf", metadata).get("rope_scaling") == expected


def test_unexplained_rope_factors_are_passed_on(tmp_path: Path) -> None:
    factors = np.linspace(1, 3, 8, dtype=np.float32)
    config = small_llama(tmp_path / "w.gguf", {}, {"rope_freqs.weight": factors})
    assert "rope_scaling" not in config
    np.testing.assert_array_equal(np.array(config["rope_freq_factors"], np.float32), factors)


def test_long_rope_factors_become_lists(tmp_path: Path) -> None:
    factors = {
        "rope_factors_long.weight": np.full(8, 2, np.float32),
        "rope_factors_short.weight": np.ones(8, np.float32),
    }
    config = small_llama(tmp_path / "w.gguf", {}, factors)
    assert config["rope_scaling"] == {"type": "longrope", "long_factor": [2.0] * 8, "short_factor": [1.0] * 8}


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "experts": ({"expert_count": 8}, UnsupportedModelError, "mixture of experts"),
    "unknown scaling": ({"rope.scaling.type": "ntk"}, UnsupportedModelError, "scales rotary positions by 'ntk'"),
    "no layers": ({"block_count": 0}, CheckpointError, "block_count is 0, expected a number above 0"),
    "too many layers": ({"block_count": 2**31}, CheckpointError, "but there are 11 tensors"),
    "heads per layer": ({"attention.head_count_kv": [2, 2]}, CheckpointError, "head_count_kv is"),
    "text for a number": ({"context_length": "many"}, CheckpointError, "context_length is 'many'"),
    "odd head size": ({"attention.key_length": 13}, CheckpointError, "multiple of the head size 13"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_metadata_is_refused(tmp_path: Path, case: str) -> None:
    metadata, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        small_llama(tmp_path / "w.gguf", metadata)


def test_all_absent_keys_are_named_at_once(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "w.gguf", "llama", {}, {"token_embd.weight": np.ones((2, 2), np.float32)})
    with pytest.raises(CheckpointError, match=r"head_count is absent.*embedding_length is absent.*feed_forward_length"):
        open_checkpoint(str(path))


def test_unknown_tensors_keep_their_names_so_that_accounting_sees_them(tmp_path: Path) -> None:
    from gguf_files import LLAMA, llama_tensors

    extra = {"blk.0.attn_sinks.weight": np.ones(4, np.float32), "blk.0.attn_rot_embd": np.ones(4, np.float32)}
    path = write_gguf(tmp_path / "w.gguf", "llama", LLAMA | byte_level(), llama_tensors(VOCAB) | extra)
    tensors = open_checkpoint(str(path)).tensors
    assert "blk.0.attn_sinks.weight" in tensors
    assert "blk.0.attn_rot_embd" not in tensors
