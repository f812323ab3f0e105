"""MPT: no biases at all, and ALiBi for positions."""

from __future__ import annotations

from dataclasses import replace

from edgellm_export.architectures.classic import Classic, Keys, LayerNames, read_classic
from edgellm_export.architectures.names import Names
from edgellm_export.blocks.alibi import Alibi, interleaved_slopes
from edgellm_export.checkpoint.config import ConfigReader

NAMES = Names(prefix="transformer.", embedding="transformer.wte")
LAYER = LayerNames(
    layer="transformer.blocks.{}",
    qkv=("attn.Wqkv",),
    out="attn.out_proj",
    norms=("norm_1", "norm_2"),
    up="ffn.up_proj",
    down="ffn.down_proj",
    final_norm="transformer.norm_f",
)
KEYS = Keys("d_model", "n_layers", "n_heads", None, "max_seq_len", "layer_norm_epsilon", act=None)
EXPONENTS = 8  # the largest of a slope; transformers does not read attn_config's alibi_bias_max


def parse(config: ConfigReader) -> Classic:
    given = config.data.get("attn_config")
    config.require(given is None or isinstance(given, dict), f"attn_config is {given!r}, expected an object")
    own = ConfigReader(given if isinstance(given, dict) else {}, config.problems)
    own.must_be("alibi_bias_max", EXPONENTS)
    classic = read_classic(config, LAYER, KEYS)
    scale, clip = own.optional_number("softmax_scale"), own.data.get("clip_qkv") or None
    heads = replace(classic.heads, scale=scale)
    return Classic(
        replace(
            classic,
            heads=heads,
            hidden_act="gelu",
            alibi=Alibi(interleaved_slopes(heads.num_heads, EXPONENTS)),
            clip=own.number("clip_qkv") if clip else None,
            norm_parts=("weight",),
            qkv_bias=False,
            output_bias=False,
            mlp_bias=False,
        ),
        NAMES,
    )
