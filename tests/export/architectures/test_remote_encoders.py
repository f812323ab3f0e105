"""Configs of checkpoints that came with code of their own, before transformers had their families."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgellm.errors import UnsupportedModelError
from edgellm_export.architectures import read_family

NOMIC: dict[str, Any] = {
    "model_type": "nomic_bert", "n_embd": 48, "n_head": 6, "n_layer": 3, "n_inner": 88, "n_positions": 64,
    "activation_function": "swiglu", "layer_norm_epsilon": 1e-12, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0,
    "prenorm": False, "vocab_size": 131, "type_vocab_size": 2, "qkv_proj_bias": False, "mlp_fc1_bias": False,
    "mlp_fc2_bias": False, "use_rms_norm": None, "rotary_scaling_factor": None,
}  # fmt: skip
SIZES: dict[str, Any] = {
    "hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 3, "intermediate_size": 88,
    "max_position_embeddings": 64, "vocab_size": 131,
}  # fmt: skip
NEW: dict[str, Any] = {"model_type": "new", **SIZES, "position_embedding_type": "rope", "rope_theta": 20000}


@pytest.mark.parametrize(
    ("older", "newer", "prefix"),
    [
        (NOMIC, {"model_type": "nomic_bert", **SIZES, "rope_theta": 1000}, ("bert.", "nomic_bert.")),
        (NEW, {"model_type": "gte", **SIZES, "rope_theta": 20000}, ("new.", "gte.")),
    ],
)
def test_an_older_config_means_what_the_newer_means(
    older: dict[str, Any], newer: dict[str, Any], prefix: tuple[str, str]
) -> None:
    given = {**older, "type_vocab_size": 2}
    assert repr(read_family(given, 99)).replace(f"'{prefix[0]}", f"'{prefix[1]}") == repr(
        read_family({**newer, "type_vocab_size": 2}, 99)
    )


def test_a_stretched_rope_is_that_of_the_checkpoints_own_code() -> None:
    found = read_family({**NEW, "rope_scaling": {"type": "ntk", "factor": 8.0}}, 99).turning[0].rope.inv_freq
    exponents = torch.arange(0, 8, 2).float() / 8
    expected = 1.0 / ((20000 * 8.0) ** exponents) / 8.0 ** (2 / 8)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        (NOMIC, "prenorm", True),
        (NOMIC, "moe_every_n_layers", 2),
        (NOMIC, "rotary_scaling_factor", 2.0),
        (NOMIC, "mlp_fc1_bias", True),
        (NEW, "logn_attention_scale", True),
        (NEW, "position_embedding_type", "absolute"),
        (NEW, "rope_scaling", {"type": "ntk", "factor": 8.0, "mixed_b": 1}),
    ],
)
def test_what_makes_another_model_is_refused(config: dict[str, Any], key: str, value: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=key):
        read_family({**config, key: value}, 99)
