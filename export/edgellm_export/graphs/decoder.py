"""A decoder-only graph, whole or in segments, from the pieces an architecture adds. The contract is in docs/design.md.

Inputs: input_ids [B, S] int64, attention_mask [B, T] int64 (ones, then zeros: rows are right-padded),
past_key_values.{i}.key and .value [B, num_kv_heads, capacity, head_dim], or .conv [B, 1, capacity, hidden_size]
or, of a state space, .conv and .ssm (see StateLayout),
logits_to_keep [1] int64 (optional, 1), rope_length [1] int64 (optional, 0).
Outputs: logits [B, K, vocab] float32 for the last K positions, present.{i}.key and .value, or as the past.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgellm_export.architectures.contract import DecoderFamily
from edgellm_export.blocks.build import BatchState, Build, CacheScales, LayerCache, Material, built
from edgellm_export.blocks.rope import needs_length_input, needs_positions
from edgellm_export.graphs import parts
from edgellm_export.graphs.parts import END, INT64, SIDES, Output
from edgellm_export.onnx.builder import BuiltGraph, GraphBuilder

PAST, PRESENT = "past_key_values.{}.{}", "present.{}.{}"
CONV, SSM = "conv", "ssm"  # the sides of layers with a short convolution, and with a state space


def build_decoder(family: DecoderFamily, material: Material, *, attentions: bool = False) -> BuiltGraph:
    """The whole model. `attentions`: with the outputs attentions.{i} [B, heads, S, T]."""
    shape = family.shape
    b = material.build(shape, "decoder", attentions=attentions)
    ids, batch = decoder_inputs(b)
    keep = parts.logits_to_keep(b)
    stream = family.embed(b, ids, batch)
    caches = [_past(b, i, scales) for i, scales in enumerate(material.cache or [None] * shape.num_layers)]
    presents: list[Output] = []
    for i, cache in enumerate(caches):
        stream, present = family.layer(b, i, stream, cache, batch)
        presents += _present(b, i, present, quantized=cache.scales is not None)
    logits = parts.last_logits(b, family, stream, keep, "/model")
    # The second dimension is declared as 1, the default: onnxruntime-genai then expects the last position only.
    return built(b, [(logits, "logits", ir.DataType.FLOAT, ["batch_size", 1, shape.vocab_size]), *presents])


def build_layer(
    family: DecoderFamily, index: int, material: Material, *, observe: bool = False, observe_cache: bool = False
) -> BuiltGraph:
    """hidden, input_ids, attention_mask, past_key_values.{index} -> see `layer_segment`; for whole sequences: the past
    is empty, and convolutions and state spaces have none. With `observe_cache`, also present.{index}.key and .value
    [B, num_kv_heads, S, head_dim]."""
    b = material.build(family.shape, f"layer_{index}")
    _, batch = decoder_inputs(b)
    scales = material.cache[index] if material.cache else None
    past = LayerCache() if index in b.shape.recurrent_layers else _past(b, index, scales)
    stream, present = family.layer(b, index, parts.stream_input(b, family.widths(index)), past, batch)
    cached = _present(b, index, present, quantized=past.scales is not None) if observe_cache else []
    return parts.layer_segment(b, stream, observe=observe, more=cached)


def decoder_inputs(b: Build) -> tuple[ir.Value, BatchState]:
    """input_ids, and what follows from attention_mask."""
    g = b.graph
    ids = g.input("input_ids", INT64, ["batch_size", "sequence_length"])
    mask = g.input("attention_mask", INT64, ["batch_size", "total_sequence_length"])
    lengths = g.op("ReduceSum", mask, g.ints(1), name="/model/lengths/ReduceSum", keepdims=0)
    last = g.op("Sub", lengths, g.ints(1), name="/model/seqlens/Sub")
    seqlens = g.op("Cast", last, name="/model/seqlens/Cast", to=int(ir.DataType.INT32))
    width = g.op("Shape", mask, name="/model/total/Shape", start=1, end=2)
    narrow = g.op("Cast", width, name="/model/total/Cast", to=int(ir.DataType.INT32))
    total = g.op("Squeeze", narrow, g.ints(0), name="/model/total/Squeeze")
    length_dependent = needs_length_input(b.shape.ropes)
    positions = _positions(g, ids, mask) if b.shape.learned_positions or needs_positions(b.shape.ropes) else None
    if length_dependent:
        lengths = g.op(
            "Max", lengths, g.optional_input("rope_length", np.array([0], np.int64)), name="/model/rope/lengths/Max"
        )
    return ids, BatchState(seqlens, total, positions, lengths if length_dependent else None)


def _positions(g: GraphBuilder, ids: ir.Value, mask: ir.Value) -> ir.Value:
    """[B, S]: how many tokens stand before each of the last S. Padding, on whichever side, gets a position in range."""
    counts = g.op("CumSum", mask, g.scalar(1), name="/model/positions/CumSum")
    zero_based = g.op("Sub", counts, g.ints(1), name="/model/positions/Sub")
    clipped = g.op("Max", zero_based, g.ints(0), name="/model/positions/Max")
    length = g.op("Shape", ids, name="/model/positions/Shape", start=1, end=2)
    start = g.op("Neg", length, name="/model/positions/Neg")
    return g.op("Slice", clipped, start, g.ints(END), g.ints(1), name="/model/positions/Slice")


def _past(b: Build, index: int, scales: CacheScales | None) -> LayerCache:
    if index in b.shape.conv_layers:
        return LayerCache(conv=b.graph.input(PAST.format(index, CONV), *_conv_type(b, "past_sequence_length")))
    if index in b.shape.recurrent_layers:
        conv, ssm = (b.graph.input(PAST.format(index, side), *kind) for side, kind in _state_types(b))
        return LayerCache(conv=conv, ssm=ssm)
    dtype, shape = _cache_type(b, "past_sequence_length", quantized=scales is not None)
    key, value = (b.graph.input(PAST.format(index, side), dtype, shape) for side in SIDES)
    return LayerCache(key, value, scales)


def _present(b: Build, index: int, present: LayerCache, *, quantized: bool) -> list[Output]:
    if present.ssm is not None:
        return [(getattr(present, side), PRESENT.format(index, side), *kind) for side, kind in _state_types(b)]
    if present.conv is not None:
        return [(present.conv, PRESENT.format(index, CONV), *_conv_type(b, "total_sequence_length"))]
    dtype, shape = _cache_type(b, "total_sequence_length", quantized=quantized)
    return [(getattr(present, side), PRESENT.format(index, side), dtype, shape) for side in SIDES]


def _cache_type(b: Build, length: str, *, quantized: bool) -> tuple[ir.DataType, list[int | str]]:
    dtype = ir.DataType.INT8 if quantized else b.activation_type
    return dtype, ["batch_size", b.shape.num_kv_heads, length, b.shape.head_dim]


def _state_types(b: Build) -> list[tuple[str, tuple[ir.DataType, list[int | str]]]]:
    states = b.shape.states
    assert states is not None
    read: list[int | str] = ["batch_size", 1, states.kernel - 1, states.width]
    state: list[int | str] = ["batch_size", states.num_heads, states.head_dim, states.state_size]
    return [(CONV, (ir.DataType.FLOAT, read)), (SSM, (ir.DataType.FLOAT, state))]


def _conv_type(b: Build, length: str) -> tuple[ir.DataType, list[int | str]]:
    return b.activation_type, ["batch_size", 1, length, b.shape.hidden_size]
