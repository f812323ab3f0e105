"""GTE's encoder (Zhang et al., arXiv 2407.19669), "new" before transformers had it: BERT with rotary positions and
gated MLPs."""

from __future__ import annotations

import numpy as np

from edgellm.errors import UnsupportedModelError
from edgellm_export.architectures.bert import bert_names, text_head
from edgellm_export.architectures.contract import EncoderConfig, LayerNames
from edgellm_export.architectures.encoder import EncoderNames, MaskedHead, read_config
from edgellm_export.architectures.rope_encoder import GatedNames, RopeEncoder, Turning, one_rope
from edgellm_export.blocks.rope import StaticRope
from edgellm_export.checkpoint.config import ConfigReader

MASKED = MaskedHead(
    dense="lm_head.dense", norm="lm_head.norm", decoder="lm_head.decoder", bias="lm_head.decoder.bias",
    patterns=("lm_head.*",), act="gelu",
)  # fmt: skip
OTHER_MODELS = {
    "layer_norm_type": "layer_norm", "logn_attention_scale": False, "logn_attention_clip1": False, "pack_qkv": True,
}  # fmt: skip


def parse(config: ConfigReader) -> RopeEncoder:
    older = config.data["model_type"] == "new"
    for key, usual in OTHER_MODELS.items():
        config.must_be(key, usual)
    types = config.integer("type_vocab_size", minimum=0)
    sizes = read_config(config, has_types=types > 0, kind_of_positions="rope")
    prefix = "new." if older else "gte."
    layer = f"{prefix}encoder.layer.{{}}"
    names = GatedNames(
        qkv=f"{layer}.attention.qkv_proj", out=f"{layer}.attention.o_proj", attention_norm=f"{layer}.attn_ln",
        halves=f"{layer}.mlp.up_gate_proj", down=f"{layer}.mlp.down_proj", output_norm=f"{layer}.mlp_ln",
        gate_first=False, biased=frozenset({"qkv", "out", "down"}),
    )  # fmt: skip
    places = EncoderNames(
        "", f"{prefix}embeddings.token_type_embeddings", f"{prefix}embeddings.LayerNorm", "", LayerNames(*[""] * 8)
    )
    theta, scaling = config.number("rope_theta"), config.data.get("rope_scaling")
    turning = _stretched(config, sizes, theta) if older and scaling else one_rope(config, sizes, theta)
    return RopeEncoder(sizes, bert_names(prefix, MASKED), places, MASKED, text_head(prefix), None, names, turning)


def _stretched(config: ConfigReader, sizes: EncoderConfig, theta: float) -> list[Turning]:
    """As the code that comes with the checkpoints does it, for texts of any length: a larger base, and frequencies
    divided besides."""
    given = config.data["rope_scaling"]
    if not isinstance(given, dict) or given.get("type") != "ntk" or {*given} != {"type", "factor"}:
        raise UnsupportedModelError(
            f"config.json: rope_scaling is {given!r}; edgellm builds this family with null or a factor of type 'ntk'"
        )
    factor, size = ConfigReader(given, config.problems).number("factor"), sizes.hidden_size // sizes.num_heads
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    frequencies = np.float32(1) / np.power(np.float32(theta * factor), exponents) / np.float32(factor ** (2 / size))
    return [Turning(StaticRope(np.asarray(frequencies, np.float32)))] * sizes.num_layers
