"""OPT: learned positions, of which the first two rows are nobody's."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.classic import Classic, Keys, LayerNames, read_classic, with_positions
from edgellm_export.architectures.names import Names
from edgellm_export.checkpoint.config import ConfigReader

NAMES = Names(embedding="model.decoder.embed_tokens")
LAYER = LayerNames(
    layer="model.decoder.layers.{}",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out="self_attn.out_proj",
    norms=("self_attn_layer_norm", "final_layer_norm"),
    up="fc1",
    down="fc2",
    final_norm="model.decoder.final_layer_norm",
    positions="model.decoder.embed_positions",
)
KEYS = Keys(inner="ffn_dim", act="activation_function", eps=None)


def parse(config: ConfigReader) -> Classic:
    config.must_be("do_layer_norm_before", True, null=False)
    config.must_be("layer_norm_elementwise_affine", True, null=False)
    config.must_be("_remove_final_layer_norm", False)
    classic = with_positions(read_classic(config, LAYER, KEYS))
    config.must_be("word_embed_proj_dim", classic.shape.hidden_size)
    bias = config.flag("enable_bias")
    return Classic(replace(classic, skipped=2, qkv_bias=bias, output_bias=bias, mlp_bias=bias), NAMES)
