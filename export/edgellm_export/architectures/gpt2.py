"""GPT-2: learned positions, LayerNorm, biases everywhere, matrices stored input-first (Conv1D)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from edgellm_export.architectures.decoder import NamedDecoder
from edgellm_export.architectures.names import Names
from edgellm_export.blocks import attention, norms
from edgellm_export.blocks import layers as blocks
from edgellm_export.blocks.build import BatchState, Build, DecoderShape, Heads, LayerCache, Stream
from edgellm_export.checkpoint.config import MAX_POSITIONS, ConfigReader
from edgellm_export.checkpoint.tensors import transposed

MASKS = ("*.attn.bias", "*.attn.masked_bias")  # of causal attention, which older checkpoints hold
CONV1D = ("*.c_attn.weight", "*.c_proj.weight", "*.c_fc.weight")
NAMES = Names(prefix="transformer.", embedding="transformer.wte", unused=MASKS, transposed=CONV1D)


@dataclass(frozen=True)
class GPT2Config:
    """`less_with_depth`: attention scores are also divided by the layer's number, from 1."""

    shape: DecoderShape
    heads: Heads
    less_with_depth: bool
    intermediate_size: int
    layer_norm_eps: float
    hidden_act: str


def parse(config: ConfigReader) -> GPT2:
    config.must_be("is_causal", True, null=False)
    config.no_windows()
    config.must_be("add_cross_attention", False)
    hidden, count = config.integer("n_embd"), config.integer("n_head")
    config.require(hidden % count == 0, f"n_embd {hidden} is not a multiple of n_head {count}")
    head_dim = max(1, hidden // count)
    config.require(head_dim % 8 == 0, f"n_embd / n_head is {head_dim}; ONNX Runtime's attention takes multiples of 8")
    shape = DecoderShape(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=config.layers("n_layer"),
        num_kv_heads=count,
        head_dim=head_dim,
        context_length=config.integer("n_positions", maximum=MAX_POSITIONS),
        tied_embedding=config.flag("tie_word_embeddings"),
        learned_positions=True,
    )
    return GPT2(
        GPT2Config(
            shape=shape,
            heads=Heads(count, count, head_dim, scale=head_dim**-0.5 if config.flag("scale_attn_weights") else 1.0),
            less_with_depth=config.flag("scale_attn_by_inverse_layer_idx"),
            intermediate_size=config.integer("n_inner", 4 * hidden),
            layer_norm_eps=config.number("layer_norm_epsilon"),
            hidden_act=config.choice("activation_function", list(blocks.ACTIVATIONS)),
        ),
        NAMES,
    )


class GPT2(NamedDecoder[GPT2Config]):
    known_to_genai = False  # which has another graph for it

    def embed(self, b: Build, input_ids: ir.Value, batch: BatchState) -> Stream:
        tokens = super().embed(b, input_ids, batch).residual
        return Stream(tokens, blocks.learned_positions(b, batch.positions, "transformer.wpe"))

    def layer(
        self, b: Build, index: int, stream: Stream, cache: LayerCache, batch: BatchState
    ) -> tuple[Stream, LayerCache]:
        c, name, hidden = self.config, f"transformer.h.{index}", self.shape.hidden_size
        residual = norms.add(b, stream, f"{name}.residual")
        x = norms.layer_norm(b, residual, f"{name}.ln_1", hidden, c.layer_norm_eps)
        qkv = self._conv1d(b, x, f"{name}.attn.c_attn", 3 * hidden, hidden)
        heads = replace(c.heads, scale=(c.heads.scale or 1.0) / (index + 1)) if c.less_with_depth else c.heads
        x, present = attention.grouped_query(b, [qkv], heads, cache, batch, None, 0, f"{name}.attn")
        stream = Stream(residual, self._conv1d(b, x, f"{name}.attn.c_proj", hidden, hidden))
        residual = norms.add(b, stream, f"{name}.attn.residual")
        x = norms.layer_norm(b, residual, f"{name}.ln_2", hidden, c.layer_norm_eps)
        x = blocks.activate(
            b, self._conv1d(b, x, f"{name}.mlp.c_fc", c.intermediate_size, hidden), c.hidden_act, f"{name}.mlp"
        )
        return Stream(residual, self._conv1d(b, x, f"{name}.mlp.c_proj", hidden, c.intermediate_size)), present

    def final_norm(self, b: Build, stream: Stream) -> ir.Value:
        residual = norms.add(b, stream, "transformer.residual")
        return norms.layer_norm(b, residual, "transformer.ln_f", self.shape.hidden_size, self.config.layer_norm_eps)

    def _conv1d(self, b: Build, x: ir.Value, name: str, rows: int, columns: int) -> ir.Value:
        weight = transposed(f"{name}.weight", b.tensors.take(f"{name}.weight", (columns, rows)))
        return b.project(x, weight, b.vector(f"{name}.bias", rows), name)
