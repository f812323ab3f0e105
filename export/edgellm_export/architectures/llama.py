"""Llama, and the parts that its relatives (Mistral, Qwen, Phi-3) share with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgellm_export.architectures.decoder import NamedDecoder, read_shape
from edgellm_export.blocks import attention, norms
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, DecoderShape, Heads, LayerCache, Stream
from edgellm_export.blocks.rope import KINDS, Rope, read_rope, rope_request, rotary_dim
from edgellm_export.checkpoint.config import MAX_HEAD_DIM, MAX_POSITIONS, ConfigReader


@dataclass(frozen=True)
class LlamaConfig:
    """`windows`: per layer, the sliding window in tokens or None. `ropes`: likewise, where they differ; None for a
    layer without. `parallel`: attention and MLP both read the layer's one norm, and what they give is added to its
    input."""

    shape: DecoderShape
    heads: Heads
    intermediate_size: int
    rms_norm_eps: float
    hidden_act: str
    rope: Rope
    windows: Sequence[int | None]
    ropes: Sequence[Rope | None] = ()
    parallel: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    fused: bool = False  # the checkpoint stores q, k, v and gate, up as one matrix each
    fused_mlp: bool = False  # gate and up alone
    gated: bool = True  # without a gate, the MLP is up, activation and down
    head_scale: float = 1.0  # of the logits


def parse(config: ConfigReader) -> Llama:
    config.no_windows()
    return Llama(replace(with_biases(config, read_llama(config)), mlp_bias=config.flag("mlp_bias")))


def with_biases(config: ConfigReader, llama: LlamaConfig) -> LlamaConfig:
    """On all four layers of attention, if `attention_bias`."""
    bias = config.flag("attention_bias")
    return replace(llama, qkv_bias=bias, output_bias=bias)


def read_llama(
    config: ConfigReader,
    *,
    share: float | None = None,
    kinds: Mapping[str, str] = KINDS,
    eps: str | None = "rms_norm_eps",
) -> LlamaConfig:
    """The keys that all relatives have. `share`: of a head that is rotated, where it need not be all. `kinds`: of
    rope. `eps`: the norms' key, None where it is fixed."""
    config.must_be("is_causal", True, null=False)
    hidden, layers = config.integer("hidden_size"), config.layers("num_hidden_layers")
    heads = read_heads(config, hidden)
    positions = config.integer("max_position_embeddings", maximum=MAX_POSITIONS)
    theta = config.number("rope_theta")
    request = rope_request(config, head_dim=heads.head_dim, positions=positions, theta=theta, share=share)
    rotated = request.rotary_dim
    config.require(rotated % 2 == 0 and rotated > 0, f"{rotated} of head_dim are rotated, expected pairs")
    rope = read_rope(config, replace(request, rotary_dim=max(rotated, 2)), kinds)
    return LlamaConfig(
        shape=read_shape(config, hidden, layers, heads, context=request.context_length, ropes=(rope,)),
        heads=heads,
        intermediate_size=config.integer("intermediate_size"),
        rms_norm_eps=0.0 if eps is None else config.number(eps),
        hidden_act=config.choice("hidden_act", [*blocks.ACTIVATIONS, *blocks.SQUARED]),
        rope=rope,
        windows=[None] * layers,
    )


def read_heads(config: ConfigReader, hidden: int) -> Heads:
    """Head counts and size, checked against what GroupQueryAttention takes."""
    count = config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", count)
    head_dim = config.integer("head_dim", max(1, hidden // count), maximum=MAX_HEAD_DIM)
    config.require(
        count % kv_heads == 0, f"num_attention_heads {count} is not a multiple of num_key_value_heads {kv_heads}"
    )
    config.require(
        head_dim % 16 == 0, f"the head size is {head_dim}; ONNX Runtime's rotary attention takes multiples of 16"
    )
    return Heads(count, kv_heads, head_dim)


class Llama(NamedDecoder[LlamaConfig]):
    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        name, c = f"model.layers.{index}", self.config
        x, stream = self._norm(b, stream, f"{name}.input_layernorm")
        y, present = self._attention(b, x, f"{name}.self_attn", cache, batch, index)
        if c.parallel:
            attended = norms.add(b, Stream(stream.residual, y), f"{name}.self_attn.residual")
            return Stream(attended, self._mlp(b, x, f"{name}.mlp")), present
        x, stream = self._norm(b, Stream(stream.residual, y), f"{name}.post_attention_layernorm")
        return Stream(stream.residual, self._mlp(b, x, f"{name}.mlp")), present

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        return self._norm(b, stream, "model.norm")[0]

    def _norm(self, b: Build, stream: Stream, name: str) -> tuple[ir.Value, Stream]:
        """Normed sum of the stream, and the stream with its delta added."""
        return norms.add_rms_norm_of(b, stream, name, self.config.rms_norm_eps)

    def _attention(
        self, b: Build, x: ir.Value, name: str, cache: LayerCache, batch: BatchState, index: int
    ) -> tuple[ir.Value, LayerCache]:
        c, heads = self.config, replace(self.config.heads, window=self.config.windows[index])
        qkv, rope = self._qkv(b, x, name), c.ropes[index] if c.ropes else c.rope
        y, present = attention.grouped_query(b, qkv, heads, cache, batch, rope, self.shape.context_length, name)
        return self._attended(b, y, name), present

    def _attended(self, b: Build, y: ir.Value, name: str) -> ir.Value:
        """The layer behind attention."""
        c, hidden = self.config, self.shape.hidden_size
        return blocks.linear(b, y, f"{name}.o_proj", hidden, c.heads.query_size, bias=c.output_bias)

    def _qkv(self, b: Build, x: ir.Value, name: str) -> Sequence[ir.Value]:
        """Queries, keys and values, packed or apart."""
        c, heads, hidden = self.config, self.config.heads, self.shape.hidden_size
        if c.qk_norm:
            return attention.normed_qkv(b, x, name, heads, hidden, bias=c.qkv_bias, eps=c.rms_norm_eps)
        if c.fused:
            rows = heads.query_size + 2 * heads.kv_size
            return [blocks.linear(b, x, f"{name}.qkv_proj", rows, hidden, bias=c.qkv_bias)]
        return [attention.packed_qkv(b, x, name, heads, hidden, bias=c.qkv_bias)]

    def _mlp(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        c, hidden = self.config, self.shape.hidden_size
        if c.gated:
            fused = c.fused or c.fused_mlp
            y = blocks.gated(b, x, name, c.intermediate_size, hidden, c.hidden_act, bias=c.mlp_bias, fused=fused)
        else:
            y = blocks.linear(b, x, f"{name}.up_proj", c.intermediate_size, hidden, bias=c.mlp_bias)
            y = blocks.activate(b, y, c.hidden_act, f"{name}.act")
        return blocks.linear(b, y, f"{name}.down_proj", hidden, c.intermediate_size, bias=c.mlp_bias)


class Relative(Llama):
    """One whose model_type onnxruntime-genai does not know, for a graph like this."""

    known_to_genai = False


def rotating_neighbours(llama: LlamaConfig) -> LlamaConfig:
    """The same where the channels that rotate together are neighbours in the checkpoint."""
    return replace(llama, heads=replace(llama.heads, neighbours=rotary_dim(llama.rope)))
