"""A decoder-only graph, whole or in segments, from the pieces an architecture adds. The contract is in docs/design.md.

Inputs: input_ids [B, S] int64, attention_mask [B, T] int64 (ones, then zeros: rows are right-padded),
past_key_values.{i}.key and .value [B, num_kv_heads, capacity, head_dim], logits_to_keep [1] int64 (optional, 1),
rope_length [1] int64 (optional, 0).
Outputs: logits [B, K, vocab] float32 for the last K positions, present.{i}.key and .value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgellm_export.architectures.contract import DecoderFamily
from edgellm_export.blocks.build import BatchState, Build, CacheScales, LayerCache, Stream, TensorSource, built
from edgellm_export.blocks.channels import Channels, ChannelScales
from edgellm_export.blocks.rope import needs_length_input
from edgellm_export.onnx.builder import GraphBuilder
from edgellm_export.onnx.built import BuiltGraph
from edgellm_export.quantize import WeightScheme

NO_SCALES: ChannelScales = {}
INT64 = ir.DataType.INT64
PAST, PRESENT = "past_key_values.{}.{}", "present.{}.{}"


def build_decoder(
    architecture: DecoderFamily,
    tensors: TensorSource,
    scheme: WeightScheme,
    scales: ChannelScales = NO_SCALES,
    cache_scales: Sequence[CacheScales] = (),
    *,
    attentions: bool = False,
) -> BuiltGraph:
    """The whole model. `scales`: see edgellm_export.blocks.channels. `cache_scales`: of each layer, for an int8 cache.
    `attentions`: with the outputs attentions.{i} [B, heads, S, T]."""
    shape = architecture.shape
    b = Build(shape, GraphBuilder("decoder"), scheme, tensors, Channels(scales), [] if attentions else None)
    ids, batch = _inputs(b)
    keep = b.graph.optional_input("logits_to_keep", np.array([1], np.int64))
    stream = architecture.embed(b, ids, batch)
    caches = [_past(b, i, cache_scales[i] if cache_scales else None) for i in range(shape.num_layers)]
    presents = []
    for i, cache in enumerate(caches):
        stream, present = architecture.layer(b, i, stream, cache, batch)
        presents.append(present)
    hidden = architecture.final_norm(b, _last_positions(b, stream, keep))
    logits = architecture.head(b, hidden)
    if b.activation != np.float32:
        logits = b.graph.cast(logits, np.dtype(np.float32), "/lm_head/Cast")
    # The second dimension is declared as 1, the default: onnxruntime-genai then expects the last position only.
    outputs: list[Any] = [(logits, "logits", ir.DataType.FLOAT, ["batch_size", 1, shape.vocab_size])]
    for i, present in enumerate(presents):
        outputs += _present(b, i, present, quantized=bool(cache_scales))
    return built(b, outputs)


def build_embedding(architecture: DecoderFamily, tensors: TensorSource, scheme: WeightScheme) -> BuiltGraph:
    """input_ids, attention_mask -> hidden [B, S, hidden_size]."""
    b = Build(architecture.shape, GraphBuilder("embedding"), scheme, tensors)
    ids, batch = _inputs(b)
    stream = architecture.embed(b, ids, batch)
    return built(b, [_hidden(b, stream)])


def build_layer(
    architecture: DecoderFamily,
    index: int,
    tensors: TensorSource,
    scheme: WeightScheme,
    scales: ChannelScales = NO_SCALES,
    cache_scales: CacheScales | None = None,
    *,
    observe: bool = False,
    observe_cache: bool = False,
) -> BuiltGraph:
    """hidden, input_ids, attention_mask, past_key_values.{index} -> hidden. For whole sequences: the past is empty.

    With `observe`, also the values [B, S, size] that linear layers read, under the names that the projections' x have;
    with `observe_cache`, also present.{index}.key and .value [B, num_kv_heads, S, head_dim].
    """
    b = Build(architecture.shape, GraphBuilder(f"layer_{index}"), scheme, tensors, Channels(scales))
    _, batch = _inputs(b)
    hidden = b.graph.input(
        "hidden",
        ir.DataType.from_numpy(b.activation),
        ["batch_size", "sequence_length", architecture.shape.hidden_size],
    )
    stream, present = architecture.layer(b, index, Stream(hidden), _past(b, index, cache_scales), batch)
    dtype = ir.DataType.from_numpy(b.activation)
    read = dict.fromkeys(projection.x for projection in b.channels.projections)
    extra = [(x, str(x.name), dtype, ["batch_size", "sequence_length", None]) for x in read]
    extra = (extra if observe else []) + (_present(b, index, present, quantized=False) if observe_cache else [])
    return built(b, [_hidden(b, stream), *extra])


def build_final_norm(architecture: DecoderFamily, tensors: TensorSource, scheme: WeightScheme) -> BuiltGraph:
    """hidden -> hidden, ready for the head."""
    b = Build(architecture.shape, GraphBuilder("final_norm"), scheme, tensors)
    hidden = b.graph.input(
        "hidden",
        ir.DataType.from_numpy(b.activation),
        ["batch_size", "sequence_length", architecture.shape.hidden_size],
    )
    return built(b, [_hidden(b, Stream(architecture.final_norm(b, Stream(hidden))))])


def build_head(architecture: DecoderFamily, tensors: TensorSource, scheme: WeightScheme) -> BuiltGraph:
    """hidden, normed -> logits. `tensors` may hold a part of the vocabulary only."""
    b = Build(architecture.shape, GraphBuilder("head"), scheme, tensors)
    hidden = b.graph.input(
        "hidden",
        ir.DataType.from_numpy(b.activation),
        ["batch_size", "sequence_length", architecture.shape.hidden_size],
    )
    logits = architecture.head(b, hidden)
    return built(
        b, [(logits, "logits", ir.DataType.from_numpy(b.activation), ["batch_size", "sequence_length", "vocab_size"])]
    )


def _inputs(b: Build) -> tuple[ir.Value, BatchState]:
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
    positions = _positions(g, ids, mask) if b.shape.learned_positions or length_dependent else None
    if length_dependent:
        lengths = g.op(
            "Max", lengths, g.optional_input("rope_length", np.array([0], np.int64)), name="/model/rope/lengths/Max"
        )
    return ids, BatchState(seqlens, total, positions, lengths if length_dependent else None)


def _positions(g: GraphBuilder, ids: ir.Value, mask: ir.Value) -> ir.Value:
    """[B, S]: how many tokens stand before each of the last S. Padding, on whichever side, gets a position in range."""
    counts = g.op("CumSum", mask, g.constant("/constants/1", np.array(1, np.int64)), name="/model/positions/CumSum")
    zero_based = g.op("Sub", counts, g.ints(1), name="/model/positions/Sub")
    clipped = g.op("Max", zero_based, g.ints(0), name="/model/positions/Max")
    length = g.op("Shape", ids, name="/model/positions/Shape", start=1, end=2)
    start = g.op("Neg", length, name="/model/positions/Neg")
    return g.op("Slice", clipped, start, g.ints(np.iinfo(np.int64).max), g.ints(1), name="/model/positions/Slice")


def _last_positions(b: Build, stream: Stream, keep: ir.Value) -> Stream:
    """The stream's last `keep` positions: only they go through the final norm and the head."""
    g = b.graph
    start = g.op("Neg", keep, name="/model/keep/Neg")

    def cut(value: ir.Value, part: str) -> ir.Value:
        return g.op("Slice", value, start, g.ints(np.iinfo(np.int64).max), g.ints(1), name=f"/model/keep/{part}/Slice")

    return Stream(cut(stream.residual, "residual"), None if stream.delta is None else cut(stream.delta, "delta"))


def _past(b: Build, index: int, scales: CacheScales | None) -> LayerCache:
    dtype, shape = _cache_type(b, "past_sequence_length", quantized=scales is not None)
    key, value = (b.graph.input(PAST.format(index, side), dtype, shape) for side in ("key", "value"))
    return LayerCache(key, value, scales)


def _present(b: Build, index: int, present: LayerCache, *, quantized: bool) -> list[Any]:
    dtype, shape = _cache_type(b, "total_sequence_length", quantized=quantized)
    return [(getattr(present, side), PRESENT.format(index, side), dtype, shape) for side in ("key", "value")]


def _cache_type(b: Build, length: str, *, quantized: bool) -> tuple[ir.DataType, list[int | str]]:
    dtype = ir.DataType.INT8 if quantized else ir.DataType.from_numpy(b.activation)
    return dtype, ["batch_size", b.shape.num_kv_heads, length, b.shape.head_dim]


def _hidden(b: Build, stream: Stream) -> tuple[ir.Value, str, ir.DataType, list[int | str]]:
    value = (
        stream.residual
        if stream.delta is None
        else b.graph.op("Add", stream.residual, stream.delta, name="/hidden/Add")
    )
    shape: list[int | str] = ["batch_size", "sequence_length", b.shape.hidden_size]
    return value, "hidden_out", ir.DataType.from_numpy(b.activation), shape
