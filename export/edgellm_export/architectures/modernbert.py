"""ModernBERT (Warner et al., arXiv 2412.13663): norms before the blocks, rotary positions, gated MLPs, and layers that
see some tokens to either side only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from edgellm.errors import UnsupportedModelError
from edgellm_export.architectures.contract import EncoderConfig, HeadKind, LayerNames
from edgellm_export.architectures.encoder import (
    CLASSIFIER,
    ConfigKeys,
    EncoderNames,
    MaskedHead,
    TextHead,
    classify,
    read_config,
)
from edgellm_export.architectures.names import Names
from edgellm_export.architectures.rope_encoder import PLAIN, GatedNames, RopeEncoder, Turning
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import Build
from edgellm_export.blocks.norms import layer_norm
from edgellm_export.blocks.pooling import pooled
from edgellm_export.blocks.rope import StaticRope, read_rope, request_of
from edgellm_export.checkpoint.config import FULL, SLIDING, ConfigReader

KEYS = ConfigKeys(act="hidden_activation")
PLACES = EncoderNames(
    positions="", types="", embedding_norm="model.embeddings.norm", projection="",
    layer=LayerNames("", "", "", "", "", "", "", ""),
)  # fmt: skip
LAYERS = GatedNames(
    qkv="model.layers.{}.attn.Wqkv", out="model.layers.{}.attn.Wo", attention_norm="model.layers.{}.attn_norm",
    halves="model.layers.{}.mlp.Wi", down="model.layers.{}.mlp.Wo", output_norm="model.layers.{}.mlp_norm",
)  # fmt: skip
MASKED = MaskedHead("head.dense", "head.norm", "decoder", "decoder.bias", ("head.*", "decoder.*"))
TEXT = TextHead("head", "head.dense", "", ("head.*", f"{CLASSIFIER}.*"))
THETAS = {FULL: "global_rope_theta", SLIDING: "local_rope_theta"}


@dataclass(frozen=True)
class ModernBert(RopeEncoder):
    """`pooling`: of texts' classes. `head_act`, `head_bias`, `decoder_bias`: of the heads."""

    pooling: str = "cls"
    head_act: str = "gelu"
    head_bias: bool = False
    decoder_bias: bool = True

    def head(self, b: Build, x: ir.Value, kind: HeadKind, labels: int, mask: ir.Value) -> ir.Value:
        c = self.config
        if kind == "text-classification":
            x = pooled(b, x, mask, "mean" if self.pooling == "mean" else "cls")
        x = blocks.linear(b, x, "head.dense", c.hidden_size, c.hidden_size, bias=self.head_bias)
        x = blocks.activate(b, x, self.head_act, "head.act")
        x = layer_norm(b, x, "head.norm", c.hidden_size, c.eps, has=c.norm_parts)
        if kind != "fill-mask":
            return classify(b, x, CLASSIFIER, labels, c.hidden_size)
        name = self.names.embedding if c.tied_embedding else self.names.head
        weight = b.tensors.take(f"{name}.weight", (c.vocab_size, c.hidden_size))
        bias = b.vector("decoder.bias", c.vocab_size) if self.decoder_bias else None
        return b.project(x, weight, bias, "decoder", outer=True)

    def head_patterns(self, kind: HeadKind) -> Sequence[str]:
        return MASKED.patterns if kind == "fill-mask" else TEXT.patterns


def parse(config: ConfigReader) -> ModernBert:
    sizes = replace(
        read_config(config, KEYS, has_types=False, eps=config.number("norm_eps")), norm_bias=config.flag("norm_bias")
    )
    biased = {
        "qkv": "attention_bias", "out": "attention_bias", "halves": "mlp_bias", "down": "mlp_bias",
    }  # fmt: skip
    layers = replace(LAYERS, biased=frozenset(part for part, key in biased.items() if config.flag(key)))
    return ModernBert(
        sizes, Names("model.", "model.embeddings.tok_embeddings", "decoder"), PLACES, MASKED, TEXT, None,
        layers=layers, turning=_turning(config, sizes),
        pre_norm=True, first_normed=False, final="model.final_norm",
        pooling=config.choice("classifier_pooling", ["cls", "mean"]),
        head_act=config.choice("classifier_activation", list(blocks.ACTIVATIONS)),
        head_bias=config.flag("classifier_bias"), decoder_bias=config.flag("decoder_bias"),
    )  # fmt: skip


def _turning(config: ConfigReader, sizes: EncoderConfig) -> list[Turning]:
    """Every so many layers one sees all tokens. Ropes as transformers 5 writes them, one for each kind, or before."""
    config.must_be("rope_scaling", None)
    given: Any = config.data.get("rope_parameters") or {}
    if not isinstance(given, dict) or not all(isinstance(given.get(kind, {}), dict) for kind in THETAS):
        raise UnsupportedModelError(
            f"config.json: rope_parameters is {given!r}, expected an object for each of {', '.join(THETAS)}"
        )
    found = {kind: {"rope_theta": config.optional_number(key), **given.get(kind, {})} for kind, key in THETAS.items()}
    if found[SLIDING]["rope_theta"] is None:  # as before transformers 5
        found[SLIDING]["rope_theta"] = found[FULL]["rope_theta"]
    head_dim, ropes = sizes.hidden_size // sizes.num_heads, {}
    for kind, asked in found.items():
        request = request_of(asked, config, head_dim=head_dim, positions=sizes.positions)
        ropes[kind] = read_rope(config, request, PLAIN)
    reach, every = config.integer("local_attention") // 2, config.integer("global_attn_every_n_layers")
    windows = config.windows(reach, [SLIDING if i % every else FULL for i in range(sizes.num_layers)])
    turning = [(ropes[FULL if window is None else SLIDING], window) for window in windows]
    return [Turning(rope, window) for rope, window in turning if isinstance(rope, StaticRope)]
