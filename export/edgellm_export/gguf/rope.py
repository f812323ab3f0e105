"""Rotary scaling: GGUF keys and factor tensors to Hugging Face's `rope_scaling`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.types import FloatArray
from edgellm_export.gguf.keys import Keys
from edgellm_export.gguf.reader import GgufFile

# Llama 3 to 3.3 share these; files do not hold them.
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


YARN = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow", "yarn_attn_factor": "attention_factor"}


def rope_scaling(keys: Keys, theta: float, rotary_dim: int, positions: int) -> dict[str, Any]:
    """The config keys that describe rotary scaling, empty where there is none. `positions`: the context's length."""
    file = keys.file
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0))
    kind = keys.get("rope.scaling.type") or "linear"
    plain = kind == "none" or (kind == "linear" and factor == 1.0)
    if "rope_factors_long.weight" in file.tensors:
        return {"rope_scaling": _longrope(keys)}
    if "rope_freqs.weight" in file.tensors:
        if not plain:
            raise UnsupportedModelError(
                f"{file.path} scales rotary positions by {kind!r} and by factors, of which edgellm builds one alone"
            )
        return _from_factors(_vector(file, "rope_freqs.weight"), theta, rotary_dim)
    if plain:
        return {}
    if kind == "linear":
        return {"rope_scaling": {"rope_type": "linear", "factor": factor}}
    if kind == "yarn":
        return {"rope_scaling": _yarn(keys, factor, positions)}
    raise UnsupportedModelError(
        f"{file.path} scales rotary positions by {kind!r}, which edgellm does not build; "
        "export the Hugging Face checkpoint that it was made from"
    )


def _yarn(keys: Keys, factor: float, positions: int) -> dict[str, Any]:
    """llama.cpp multiplies its own attention factor, which is Hugging Face's, by rope.scaling.attn_factor."""
    keys.must_be("rope.scaling.yarn_ext_factor", 1.0, -1.0)
    config = {"rope_type": "yarn", "factor": factor}
    config["original_max_position_embeddings"] = keys.integer("rope.scaling.original_context_length", positions)
    for name, theirs in YARN.items():
        if value := keys.number(f"rope.scaling.{name}", 0.0):
            config[theirs] = value
    extra = keys.number("rope.scaling.attn_factor", 1.0)
    if extra != 1.0:
        config["attention_factor"] = extra * config.get("attention_factor", 0.1 * math.log(max(factor, 1.0)) + 1.0)
    return config


def _longrope(keys: Keys) -> dict[str, Any]:
    config = {
        "type": "longrope",
        "long_factor": _decimals(_vector(keys.file, "rope_factors_long.weight")),
        "short_factor": _decimals(_vector(keys.file, "rope_factors_short.weight")),
    }
    attention = keys.number("rope.scaling.attn_factor", 0.0)
    return config | ({"attention_factor": attention} if attention else {})


def _from_factors(factors: FloatArray, theta: float, rotary_dim: int) -> dict[str, Any]:
    """Llama 3's rule if it explains the factors, otherwise the factors themselves as `rope_freq_factors`."""
    if np.all(factors == 1.0):
        return {}
    if len(factors) != rotary_dim // 2 or not np.all(factors > 0):
        return {"rope_freq_factors": _decimals(factors)}  # whose reader refuses them
    rule = {"rope_type": "llama3", "factor": float(str(factors.max())), **LLAMA3}
    expected = llama3_factors(rule, theta, rotary_dim)
    if np.allclose(expected, factors, rtol=1e-4):
        return {"rope_scaling": rule}
    return {"rope_freq_factors": _decimals(factors)}


def llama3_factors(rule: dict[str, Any], theta: float, rotary_dim: int) -> FloatArray:
    """What each frequency is divided by, [rotary_dim / 2] float32, as in transformers' _compute_llama3_parameters."""
    wavelength = 2 * math.pi * theta ** (np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim)
    low, high, original = rule["low_freq_factor"], rule["high_freq_factor"], rule["original_max_position_embeddings"]
    smooth = np.clip((original / wavelength - low) / (high - low), 0.0, 1.0)
    factors: FloatArray = (1 / ((1 - smooth) / rule["factor"] + smooth)).astype(np.float32)
    return factors


def _vector(file: GgufFile, name: str) -> FloatArray:
    tensor = file.tensors.get(name)
    if tensor is None or len(tensor.shape) != 1:
        raise CheckpointError(f"{file.path} has no usable {name}; download it again")
    return tensor.rows(0, tensor.shape[0])


def _decimals(values: FloatArray) -> list[float]:
    return [float(str(value)) for value in values]
