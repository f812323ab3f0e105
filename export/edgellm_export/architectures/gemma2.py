"""Gemma 2, and the parts it shares with Gemma 3: norms before and after each block, scaled embeddings, soft caps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.architectures.decoder import NamedDecoder, read_shape
from edgellm_export.architectures.llama import read_heads
from edgellm_export.blocks import attention, norms
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, DecoderShape, Heads, LayerCache, Stream
from edgellm_export.blocks.rope import KINDS, Rope, read_rope, rope_request
from edgellm_export.checkpoint.config import MAX_POSITIONS, ConfigReader


@dataclass(frozen=True)
class GemmaConfig:
    """`windows` and `ropes`: per layer. `head_softcap`: 0 means none."""

    shape: DecoderShape
    heads: Heads
    intermediate_size: int
    rms_norm_eps: float
    hidden_act: str
    windows: Sequence[int | None]
    ropes: Sequence[Rope]
    head_softcap: float
    attention_bias: bool
    qk_norm: bool = False


def parse(config: ConfigReader, kinds: Mapping[str, str] = KINDS) -> Gemma:
    """kinds: of rope."""
    gemma = read_gemma(config)
    layers, positions, theta = gemma.shape.num_layers, gemma.shape.context_length, config.number("rope_theta")
    rope = read_rope(
        config, rope_request(config, head_dim=gemma.heads.head_dim, positions=positions, theta=theta), kinds
    )
    default = ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)]
    windows = config.windows(config.optional_integer("sliding_window"), default)
    return Gemma(replace(gemma, windows=windows, ropes=[rope] * layers, shape=replace(gemma.shape, ropes=(rope,))))


def read_gemma(config: ConfigReader) -> GemmaConfig:
    """The keys that Gemma 2 and 3 share; windows and ropes are still to come."""
    config.must_be("is_causal", True, null=False)
    config.must_be("use_bidirectional_attention", False)
    hidden, layers = config.integer("hidden_size"), config.layers("num_hidden_layers")
    heads = read_heads(config, hidden)
    heads = replace(
        heads,
        scale=config.number("query_pre_attn_scalar") ** -0.5,
        softcap=config.optional_number("attn_logit_softcapping") or 0.0,
    )
    context = config.integer("max_position_embeddings", maximum=MAX_POSITIONS)
    return GemmaConfig(
        shape=read_shape(config, hidden, layers, heads, context=context),
        heads=heads,
        intermediate_size=config.integer("intermediate_size"),
        rms_norm_eps=config.number("rms_norm_eps"),
        hidden_act=config.choice("hidden_activation", list(blocks.ACTIVATIONS)),
        windows=[None] * layers,
        ropes=(),
        head_softcap=config.optional_number("final_logit_softcapping") or 0.0,
        attention_bias=config.flag("attention_bias"),
    )


class Gemma(NamedDecoder[GemmaConfig]):
    def embed(self, b: Build, input_ids: ir.Value, batch: BatchState) -> Stream:
        return self.scaled(b, input_ids)

    def scaled(self, b: Build, input_ids: ir.Value) -> Stream:
        """The embeddings of the ids."""
        name, size = self.names.embedding, self.shape.hidden_size
        x = blocks.embedding(b, input_ids, name, self.shape.vocab_size, size)
        return Stream(blocks.scale(b, x, math.sqrt(size), f"{name}.scale"))

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        name = f"model.layers.{index}"
        x, stream = self.norm(b, stream, f"{name}.input_layernorm")
        x, present = self.attention(b, x, index, f"{name}.self_attn", cache, batch)
        x, _ = self.norm(b, Stream(x), f"{name}.post_attention_layernorm")
        x, stream = self.norm(b, Stream(stream.residual, x), f"{name}.pre_feedforward_layernorm")
        x = self.mlp(b, x, f"{name}.mlp")
        x, _ = self.norm(b, Stream(x), f"{name}.post_feedforward_layernorm")
        return Stream(stream.residual, x), present

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self.norm(b, stream, "model.norm")[0]

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        logits, cap = super().head(b, hidden), self.config.head_softcap
        return blocks.softcap(b, logits, cap, f"{self.names.head}.softcap") if cap else logits

    def norm(self, b: Build, stream: Stream, name: str) -> tuple[ir.Value, Stream]:
        """Gemma stores its norms as weight - 1."""
        return norms.add_rms_norm(b, stream, self._weight(b, name), self.config.rms_norm_eps, name)

    def _weight(self, b: Build, name: str) -> FloatArray:
        return b.vector(f"{name}.weight", self.shape.hidden_size) + 1

    def attention(
        self, b: Build, x: ir.Value, index: int, name: str, cache: LayerCache, batch: BatchState
    ) -> tuple[ir.Value, LayerCache]:
        c, hidden = self.config, self.shape.hidden_size
        heads = replace(c.heads, window=c.windows[index])
        if c.qk_norm:
            qkv = attention.normed_qkv(b, x, name, heads, hidden, bias=c.attention_bias, eps=c.rms_norm_eps, shift=1.0)
        else:
            qkv = [attention.packed_qkv(b, x, name, heads, hidden, bias=c.attention_bias)]
        y, present = attention.grouped_query(
            b, qkv, heads, cache, batch, c.ropes[index], self.shape.context_length, name
        )
        return blocks.linear(b, y, f"{name}.o_proj", hidden, heads.query_size, bias=c.attention_bias), present

    def mlp(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        c, hidden = self.config, self.shape.hidden_size
        y = blocks.gated(b, x, name, c.intermediate_size, hidden, c.hidden_act, bias=False, fused=False)
        return blocks.linear(b, y, f"{name}.down_proj", hidden, c.intermediate_size, bias=False)
