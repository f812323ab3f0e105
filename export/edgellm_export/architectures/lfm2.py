"""LFM2: Llama with normed query and key heads, in whose other layers a short convolution stands between two gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgellm_export.architectures.llama import Relative, read_llama
from edgellm_export.architectures.names import Names
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, LayerCache
from edgellm_export.blocks.short_conv import gated_short_conv
from edgellm_export.checkpoint.config import FULL, ConfigReader

CONV = "conv"
NAMES = Names(
    older={
        "q_layernorm.weight": "q_norm.weight",
        "k_layernorm.weight": "k_norm.weight",
        "operator_norm.weight": "input_layernorm.weight",
        "ffn_norm.weight": "post_attention_layernorm.weight",
        "embedding_norm.weight": "norm.weight",
    }
)


def parse(config: ConfigReader) -> Lfm2:
    usual = {"hidden_act": "silu", "rope_theta": _theta(config)}
    llama = replace(read_llama(replace(config, data={**config.data, **usual}), eps="norm_eps"), qk_norm=True)
    kinds = _kinds(config, llama.shape.num_layers)
    convolved = tuple(i for i, kind in enumerate(kinds) if kind == CONV)
    config.require(len(convolved) < len(kinds), "no layer has attention, expected one at least")
    kernel = config.integer("conv_L_cache", minimum=2, maximum=64)
    shape = replace(llama.shape, conv_layers=convolved, conv_kernel=kernel)
    sized = replace(llama, shape=shape, intermediate_size=_intermediate_size(config))
    return Lfm2(sized, NAMES, conv_bias=config.flag("conv_bias"))


def _kinds(config: ConfigReader, layers: int) -> list[str]:
    """What each layer has, as layer_types says it or, in older checkpoints, full_attn_idxs."""
    kinds, indices = config.data.get("layer_types"), config.data.get("full_attn_idxs")
    if kinds is None:
        listed = range(layers) if indices is None else indices
        known = isinstance(listed, list | range) and all(type(i) is int and 0 <= i < layers for i in listed)
        config.require(known, f"full_attn_idxs is {indices!r}, expected numbers of {layers} layers")
        return [FULL if not known or i in listed else CONV for i in range(layers)]
    known = isinstance(kinds, list) and len(kinds) == layers and all(kind in (FULL, CONV) for kind in kinds)
    config.require(known, f"layer_types is {kinds!r}, expected {layers} of {FULL!r} and {CONV!r}")
    return kinds if known else [FULL] * layers


def _theta(config: ConfigReader) -> float:
    """transformers 4 reads `theta`, too, and 5 does not."""
    theta, own = config.number("rope_theta"), config.data.get("theta")
    given = config.data.get("rope_parameters")
    used = given.get("rope_theta", theta) if isinstance(given, Mapping) else theta
    config.require(own in (None, used), f"theta is {own!r} and rope_theta {used!r}, expected the same")
    return theta


def _intermediate_size(config: ConfigReader) -> int:
    size = config.integer("intermediate_size")
    if not config.flag("block_auto_adjust_ff_dim"):
        return size
    size, multiplier = int(2 * size / 3), config.optional_number("block_ffn_dim_multiplier")
    if multiplier is None:
        return size
    multiple = config.integer("block_multiple_of")
    return -(-int(multiplier * size) // multiple) * multiple


@dataclass(frozen=True)
class Lfm2(Relative):
    """`conv_bias`: of convolutions, and of the layers before and behind."""

    conv_bias: bool = False

    def _attention(
        self, b: Build, x: ir.Value, name: str, cache: LayerCache, batch: BatchState, index: int
    ) -> tuple[ir.Value, LayerCache]:
        if index not in self.shape.conv_layers:
            return super()._attention(b, x, name, cache, batch, index)
        name, kernel = f"{name.rpartition('.')[0]}.conv", self.shape.conv_kernel
        return gated_short_conv(b, x, name, kernel, cache, batch, bias=self.conv_bias)

    def _attended(self, b: Build, y: ir.Value, name: str) -> ir.Value:
        return blocks.linear(b, y, f"{name}.out_proj", self.shape.hidden_size, self.config.heads.query_size, bias=False)

    def _mlp(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        size, hidden, name = self.config.intermediate_size, self.shape.hidden_size, name.replace("mlp", "feed_forward")
        gate, up = (
            (b.tensors.take(f"{part}.weight", (size, hidden)), None, part) for part in (f"{name}.w1", f"{name}.w3")
        )
        y = blocks.gated_by(b, x, gate, up, name, self.config.hidden_act)
        return blocks.linear(b, y, f"{name}.w2", hidden, size, bias=False)
