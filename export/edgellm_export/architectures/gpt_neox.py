"""GPT-NeoX (Pythia among them): LayerNorm, biases, a part of each head rotated, attention and MLP side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from edgellm_export.architectures.decoder import NamedDecoder
from edgellm_export.architectures.names import Names
from edgellm_export.blocks import attention, norms
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, DecoderShape, Heads, LayerCache, Stream
from edgellm_export.blocks.rope import Rope, read_rope, rope_request
from edgellm_export.checkpoint.config import MAX_POSITIONS, ConfigReader
from edgellm_export.checkpoint.tensors import HeadPart, RowConcat

BUFFERS = ("*.attention.bias", "*.attention.masked_bias", "*.rotary_emb.inv_freq")  # of older checkpoints
NAMES = Names(prefix="gpt_neox.", embedding="gpt_neox.embed_in", head="embed_out", unused=BUFFERS)


@dataclass(frozen=True)
class GPTNeoXConfig:
    """`parallel`: attention and MLP both read the layer's input, and what they give is added to it."""

    shape: DecoderShape
    heads: Heads
    intermediate_size: int
    layer_norm_eps: float
    hidden_act: str
    rope: Rope
    parallel: bool
    attention_bias: bool


def parse(config: ConfigReader) -> GPTNeoX:
    hidden, count = config.integer("hidden_size"), config.integer("num_attention_heads")
    config.require(hidden % count == 0, f"hidden_size {hidden} is not a multiple of num_attention_heads {count}")
    head_dim = max(1, hidden // count)
    config.require(head_dim % 8 == 0, f"the head size is {head_dim}; ONNX Runtime's attention takes multiples of 8")
    config.must_be("head_dim", head_dim)
    config.must_be("is_causal", True, null=False)
    config.no_windows()
    positions = config.integer("max_position_embeddings", maximum=MAX_POSITIONS)
    theta, share = config.number("rotary_emb_base"), config.number("rotary_pct")
    request = rope_request(config, head_dim=head_dim, positions=positions, theta=theta, share=share)
    rotated = request.rotary_dim
    config.require(rotated % 2 == 0 and rotated > 0, f"{rotated} of head_dim are rotated, expected pairs")
    rope = read_rope(config, replace(request, rotary_dim=max(rotated, 2)))
    shape = DecoderShape(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=config.layers("num_hidden_layers"),
        num_kv_heads=count,
        head_dim=head_dim,
        context_length=request.context_length,
        tied_embedding=config.flag("tie_word_embeddings"),
        ropes=(rope,),
    )
    return GPTNeoX(
        GPTNeoXConfig(
            shape=shape,
            heads=Heads(count, count, head_dim),
            intermediate_size=config.integer("intermediate_size"),
            layer_norm_eps=config.number("layer_norm_eps"),
            hidden_act=config.choice("hidden_act", list(blocks.ACTIVATIONS)),
            rope=rope,
            parallel=config.flag("use_parallel_residual"),
            attention_bias=config.flag("attention_bias"),
        ),
        NAMES,
    )


class GPTNeoX(NamedDecoder[GPTNeoXConfig]):
    known_to_genai = False

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        c, name, hidden = self.config, f"gpt_neox.layers.{index}", self.shape.hidden_size
        entry = norms.add(b, stream, f"{name}.residual")
        x = norms.layer_norm(b, entry, f"{name}.input_layernorm", hidden, c.layer_norm_eps)
        x, present = self._attention(b, x, f"{name}.attention", cache, batch)
        attended = norms.add(b, Stream(entry, x), f"{name}.attention.residual")
        read = entry if c.parallel else attended
        x = norms.layer_norm(b, read, f"{name}.post_attention_layernorm", hidden, c.layer_norm_eps)
        x = blocks.linear(b, x, f"{name}.mlp.dense_h_to_4h", c.intermediate_size, hidden, bias=True)
        x = blocks.activate(b, x, c.hidden_act, f"{name}.mlp")
        return Stream(
            attended, blocks.linear(b, x, f"{name}.mlp.dense_4h_to_h", hidden, c.intermediate_size, bias=True)
        ), present

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        residual = norms.add(b, stream, "gpt_neox.residual")
        return norms.layer_norm(
            b, residual, "gpt_neox.final_layer_norm", self.shape.hidden_size, self.config.layer_norm_eps
        )

    def _attention(
        self, b: Build, x: ir.Value, name: str, cache: LayerCache, batch: BatchState
    ) -> tuple[ir.Value, LayerCache]:
        c, hidden = self.config, self.shape.hidden_size
        qkv = self._packed(b, x, f"{name}.query_key_value")
        y, present = attention.grouped_query(b, [qkv], c.heads, cache, batch, c.rope, self.shape.context_length, name)
        return blocks.linear(b, y, f"{name}.dense", hidden, hidden, bias=c.attention_bias), present

    def _packed(self, b: Build, x: ir.Value, name: str) -> ir.Value:
        """Queries, keys and values side by side; the checkpoint has those of a head one behind the other."""
        hidden, size = self.shape.hidden_size, self.shape.head_dim
        whole = b.tensors.take(f"{name}.weight", (3 * hidden, hidden))
        parts = tuple(HeadPart(f"{name}.weight", whole, part, 3, size) for part in range(3))
        bias = None
        if self.config.attention_bias:
            bias = b.vector(f"{name}.bias", 3 * hidden).reshape(-1, 3, size).swapaxes(0, 1).reshape(-1)
        return b.project(x, RowConcat(f"{name}.weight", parts), bias, name)
