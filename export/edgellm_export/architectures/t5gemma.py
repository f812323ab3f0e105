"""T5Gemma (Zhang et al., arXiv 2504.06225): an encoder and a decoder that are Gemma 2's, and attention from one to the
other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import onnx_ir as ir

from edgellm.errors import CheckpointError
from edgellm.types import FloatArray
from edgellm_export.architectures import gemma2
from edgellm_export.architectures.defaults import completed
from edgellm_export.architectures.gemma2 import Gemma
from edgellm_export.architectures.names import Names
from edgellm_export.architectures.rope_encoder import PLAIN
from edgellm_export.blocks import attention
from edgellm_export.blocks import cross_attention as cross
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, DecoderShape, LayerCache, Stream
from edgellm_export.blocks.capped_attention import capped_attention, split_heads, visible
from edgellm_export.blocks.cross_attention import CrossState, SourceState, TargetState
from edgellm_export.blocks.rope import StaticRope
from edgellm_export.blocks.rotary import turned
from edgellm_export.checkpoint.config import ConfigReader, short
from edgellm_export.checkpoint.tensors import LazyTensor

ENCODER = Names(embedding="model.encoder.embed_tokens")
DECODER = Names(
    embedding="model.decoder.embed_tokens", head="lm_head.out_proj", others=("model.encoder.embed_tokens.weight",)
)


def parse(config: ConfigReader) -> T5Gemma:
    config.must_be("is_encoder_decoder", True)
    encoder, decoder = (_side(config, name) for name in ("encoder", "decoder"))
    sizes = {config.integer("vocab_size"), encoder.shape.vocab_size, decoder.shape.vocab_size}
    config.require(len(sizes) == 1, f"vocab_size is {sorted(sizes)} in its parts, expected the same in all")
    return T5Gemma(replace(encoder, names=ENCODER), replace(decoder, names=DECODER))


def _side(config: ConfigReader, name: str) -> Gemma:
    """Encoder or decoder, whose defaults are Gemma 2's. Whether the head is the embedding stands beside both."""
    given: Any = config.data.get(name) or {}
    if not isinstance(given, dict):
        raise CheckpointError(f"config.json: {name} is {short(given)}, expected the object that describes the {name}")
    own = completed({**given, "model_type": "gemma2", "tie_word_embeddings": config.flag("tie_word_embeddings")})
    reader = ConfigReader(own, config.problems, config.tensors)
    for key in ("per_layer_config", "kv_sharing_modes"):
        reader.must_be(key, None)
    return gemma2.parse(reader, PLAIN)


@dataclass(frozen=True)
class T5Gemma:
    counts_by_row: ClassVar = True
    encoder: Gemma
    decoder: Gemma

    @property
    def shape(self) -> DecoderShape:
        return self.decoder.shape

    @property
    def names(self) -> Names:
        return self.decoder.names

    @property
    def tied(self) -> bool:
        return self.decoder.tied

    @property
    def defaults(self) -> Mapping[str, FloatArray]:
        return {}

    def fitted(self, tensors: Mapping[str, LazyTensor]) -> Self:
        return replace(self, decoder=self.decoder.fitted(tensors))

    @property
    def source_layers(self) -> int:
        return self.encoder.shape.num_layers

    @property
    def source_length(self) -> int | None:
        return self.encoder.shape.context_length

    @property
    def source_size(self) -> int:
        return self.encoder.shape.hidden_size

    def source_state(self, b: Build, source: SourceState) -> SourceState:
        return source

    def embed_source(self, b: Build, input_ids: ir.Value, source: SourceState) -> Stream:
        return self.encoder.scaled(b, input_ids)

    def source_layer(self, b: Build, index: int, stream: Stream, source: SourceState) -> Stream:
        name, gemma = f"model.encoder.layers.{index}", self.encoder
        stream = _between_norms(
            b, gemma, stream, f"{name}.{{}}_self_attn_layernorm",
            lambda x: self._attention_to_source(b, index, x, source, f"{name}.self_attn"),
        )  # fmt: skip
        return self._feed_forward(b, gemma, stream, name)

    def source_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self.encoder.norm(b, stream, "model.encoder.norm")[0]

    def cross(self, b: Build, index: int, hidden: ir.Value) -> CrossState:
        c, name = self.decoder.config, f"model.decoder.layers.{index}.cross_attn"
        names = [f"{name}.k_proj", f"{name}.v_proj"]
        matrices = [b.tensors.take(f"{n}.weight", (c.heads.kv_size, self.source_size)) for n in names]
        biases = [b.vector(f"{n}.bias", c.heads.kv_size) if c.attention_bias else None for n in names]
        return cross.cross_keys_values(b, hidden, matrices, biases, c.heads, names)

    def target_state(self, b: Build, target: TargetState) -> TargetState:
        return target

    def embed(self, b: Build, input_ids: ir.Value, target: TargetState) -> Stream:
        return self.decoder.scaled(b, input_ids)

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, source: CrossState, target: TargetState
    ) -> tuple[Stream, LayerCache]:
        name, gemma = f"model.decoder.layers.{index}", self.decoder
        batch = BatchState(target.seqlens, target.total, None, None)
        x, stream = gemma.norm(b, stream, f"{name}.pre_self_attn_layernorm")
        x, present = gemma.attention(b, x, index, f"{name}.self_attn", cache, batch)
        x, _ = gemma.norm(b, Stream(x), f"{name}.post_self_attn_layernorm")
        stream = _between_norms(
            b, gemma, Stream(stream.residual, x), f"{name}.{{}}_cross_attn_layernorm",
            lambda x: self._attention_across(b, x, source, target, f"{name}.cross_attn"),
        )  # fmt: skip
        return self._feed_forward(b, gemma, stream, name), present

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self.decoder.norm(b, stream, "model.decoder.norm")[0]

    def head(self, b: Build, hidden: ir.Value) -> ir.Value:
        return self.decoder.head(b, hidden)

    def _attention_to_source(self, b: Build, index: int, x: ir.Value, source: SourceState, name: str) -> ir.Value:
        c, hidden = self.encoder.config, self.source_size
        heads, rope, keys = c.heads, c.ropes[index], source.mask
        assert keys is not None
        assert isinstance(rope, StaticRope)
        query, key, value = attention.separate_qkv(b, x, name, heads, hidden, bias=c.attention_bias)
        positions = self.encoder.shape.context_length
        query = turned(b, query, rope, positions, heads.num_heads, f"{name}.q_rotary")
        key = turned(b, key, rope, positions, heads.num_kv_heads, f"{name}.k_rotary")
        key, value = (
            split_heads(b, side, heads.num_kv_heads, heads.head_dim, f"{name}.{part}")
            for side, part in ((key, "k"), (value, "v"))
        )
        bias = visible(b, keys, c.windows[index])
        y = capped_attention(b, query, key, value, heads, bias, name, kept=b.attentions)
        return blocks.linear(b, y, f"{name}.o_proj", hidden, heads.query_size, bias=c.attention_bias)

    def _attention_across(self, b: Build, x: ir.Value, source: CrossState, target: TargetState, name: str) -> ir.Value:
        c, hidden = self.decoder.config, self.shape.hidden_size
        heads = c.heads
        query = blocks.linear(b, x, f"{name}.q_proj", heads.query_size, hidden, bias=c.attention_bias)
        folded = cross.fold(b, query, target, heads.query_size, name)
        bias = visible(b, target.mask)
        y = capped_attention(b, folded, source.key, source.value, heads, bias, name, kept=b.cross_attentions)
        y = cross.unfold(b, y, target, heads.query_size, name)
        return blocks.linear(b, y, f"{name}.o_proj", hidden, heads.query_size, bias=c.attention_bias)

    def _feed_forward(self, b: Build, gemma: Gemma, stream: Stream, name: str) -> Stream:
        return _between_norms(
            b, gemma, stream, f"{name}.{{}}_feedforward_layernorm", lambda x: gemma.mlp(b, x, f"{name}.mlp")
        )


def _between_norms(b: Build, gemma: Gemma, stream: Stream, name: str, block: Callable[[ir.Value], ir.Value]) -> Stream:
    """The stream with what a block adds, which reads one norm of `name` and has the other behind it."""
    x, stream = gemma.norm(b, stream, name.format("pre"))
    x, _ = gemma.norm(b, Stream(block(x)), name.format("post"))
    return Stream(stream.residual, x)
