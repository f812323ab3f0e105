"""Nomic's BERT (Nussbaum et al., arXiv 2402.01613): BERT with rotary positions, gated MLPs, and hardly any bias."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.bert import MASKED as BERT_MASKED
from edgellm_export.architectures.bert import bert_names, text_head
from edgellm_export.architectures.contract import EncoderConfig, LayerNames
from edgellm_export.architectures.encoder import ConfigKeys, EncoderNames, read_config
from edgellm_export.architectures.rope_encoder import GatedNames, RopeEncoder, one_rope
from edgellm_export.checkpoint.config import ConfigReader

MASKED = replace(BERT_MASKED, norm="cls.predictions.transform.layer_norm")
# As in the code that came with the checkpoints before transformers had the family.
OLDER = ConfigKeys(
    hidden_size="n_embd", heads="n_head", layers="n_layer", intermediate_size="n_inner", act="activation_function",
    positions="n_positions",
)  # fmt: skip
ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu"}
OTHER_MODELS = {
    "prenorm": False, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None, "use_rms_norm": False, "parallel_block": False, "causal": False,
    "moe_every_n_layers": 0,
}  # fmt: skip


def parse(config: ConfigReader) -> RopeEncoder:
    if "n_embd" not in config.data:
        return _built(config, read_config(config), "nomic_bert.", config.number("rope_theta"), frozenset())
    for key, usual in OTHER_MODELS.items():
        config.must_be(key, usual)
    activation = config.choice("activation_function", list(ACTIVATIONS))
    known = replace(config, data={**config.data, "activation_function": ACTIVATIONS[activation]})
    sizes = read_config(known, OLDER, eps=config.number("layer_norm_epsilon"))
    places = {"qkv": "qkv_proj_bias", "out": "qkv_proj_bias", "down": "mlp_fc2_bias"}
    config.must_be("mlp_fc1_bias", False)
    biased = frozenset(place for place, key in places.items() if config.flag(key))
    return _built(config, sizes, "bert.", config.number("rotary_emb_base"), biased)


def _built(
    config: ConfigReader, sizes: EncoderConfig, prefix: str, theta: float, biased: frozenset[str]
) -> RopeEncoder:
    layer = f"{prefix}encoder.layers.{{}}"
    names = GatedNames(
        qkv=f"{layer}.attn.Wqkv", out=f"{layer}.attn.out_proj", attention_norm=f"{layer}.norm1",
        gate=f"{layer}.mlp.fc12", up=f"{layer}.mlp.fc11", down=f"{layer}.mlp.fc2", output_norm=f"{layer}.norm2",
        biased=biased,
    )  # fmt: skip
    places = EncoderNames("", f"{prefix}embeddings.token_type_embeddings", f"{prefix}emb_ln", "", LayerNames(*[""] * 8))
    turning = one_rope(config, sizes, theta)
    return RopeEncoder(sizes, bert_names(prefix, MASKED), places, MASKED, text_head(prefix), None, names, turning)
