"""The two graphs of an encoder-decoder, whole or in segments. The contract is in docs/design.md.

Encoder: input_ids [B, T] int64, attention_mask [B, T] int64 (ones, then zeros)
-> last_hidden_state [B, T, hidden], which only other runtimes ask for, and present.{i}.encoder.key and .value
[B, N, T, head_dim] of each layer i of the decoder.

Decoder: input_ids [R, S] int64, decoder_attention_mask [R, total] int64 (ones), encoder_attention_mask [B, T] int64,
past_key_values.{i}.encoder.key and .value as the encoder gave them, past_key_values.{i}.decoder.key and .value
[R, N, capacity, head_dim], logits_to_keep [1] int64 (optional, 1)
-> logits [R, K, vocab] float32, present.{i}.decoder.key and .value.
The R rows are those of the B sources in turn, the same number for each, and all of one length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgellm_export.architectures.contract import EncoderDecoderFamily
from edgellm_export.blocks.build import Build, LayerCache, Stream, TensorSource, built
from edgellm_export.blocks.channels import Channels, ChannelScales
from edgellm_export.blocks.cross_attention import CrossState, SourceState, TargetState
from edgellm_export.onnx.builder import GraphBuilder
from edgellm_export.onnx.built import BuiltGraph
from edgellm_export.quantize import WeightScheme

NO_SCALES: ChannelScales = {}
INT32, INT64 = ir.DataType.INT32, ir.DataType.INT64
CROSS_PAST, CROSS_PRESENT = "past_key_values.{}.encoder.{}", "present.{}.encoder.{}"
PAST, PRESENT = "past_key_values.{}.decoder.{}", "present.{}.decoder.{}"
SIDES = ("key", "value")
Output = tuple[ir.Value, str, ir.DataType, list[int | str | None]]


def build_encoder(
    architecture: EncoderDecoderFamily,
    tensors: TensorSource,
    scheme: WeightScheme,
    scales: ChannelScales = NO_SCALES,
    *,
    attentions: bool = False,
) -> BuiltGraph:
    """The whole encoder, and what each layer of the decoder reads of its output. `attentions`: and its layers' weights,
    attentions.{i} [B, N, T, T]."""
    kept: list[ir.Value] | None = [] if attentions else None
    b = Build(architecture.shape, GraphBuilder("encoder"), scheme, tensors, Channels(scales), kept)
    ids, source = _source(b)
    source = architecture.source_state(b, source)
    stream = architecture.embed_source(b, ids, source)
    for i in range(architecture.source_layers):
        stream = architecture.source_layer(b, i, stream, source)
    hidden = architecture.source_norm(b, stream)
    dtype = ir.DataType.from_numpy(b.activation)
    outputs: list[Output] = [
        (hidden, "last_hidden_state", dtype, ["sources", "source_length", architecture.shape.hidden_size])
    ]
    for i in range(architecture.shape.num_layers):
        cross = architecture.cross(b, i, hidden)
        outputs += _cache_outputs(b, CROSS_PRESENT, i, cross, "source_length")
    return built(b, outputs)


def build_decoder(
    architecture: EncoderDecoderFamily,
    tensors: TensorSource,
    scheme: WeightScheme,
    scales: ChannelScales = NO_SCALES,
    *,
    attentions: bool = False,
) -> BuiltGraph:
    """The whole decoder. `attentions`: with its layers' weights, attentions.{i} and, of a row, cross_attentions.{i}."""
    shape = architecture.shape
    own: list[ir.Value] | None = [] if attentions else None
    across: list[ir.Value] | None = [] if attentions else None
    b = Build(shape, GraphBuilder("decoder"), scheme, tensors, Channels(scales), own, across)
    ids, target = _target(b)
    keep = b.graph.optional_input("logits_to_keep", np.array([1], np.int64))
    target = architecture.target_state(b, target)
    stream = architecture.embed(b, ids, target)
    layers = [(_cross_inputs(b, i), _past(b, i)) for i in range(shape.num_layers)]
    outputs: list[Output] = []
    for i, (cross, cache) in enumerate(layers):
        stream, present = architecture.layer(b, i, stream, cache, cross, target)
        outputs += _cache_outputs(b, PRESENT, i, present, "total_length")
    logits = architecture.head(b, architecture.final_norm(b, _last_positions(b, stream, keep)))
    if b.activation != np.float32:
        logits = b.graph.cast(logits, np.dtype(np.float32), "/lm_head/Cast")
    return built(b, [(logits, "logits", ir.DataType.FLOAT, ["rows", "positions", shape.vocab_size]), *outputs])


def build_source_embedding(
    architecture: EncoderDecoderFamily, tensors: TensorSource, scheme: WeightScheme
) -> BuiltGraph:
    """input_ids, attention_mask -> hidden_out."""
    b = Build(architecture.shape, GraphBuilder("source_embedding"), scheme, tensors)
    ids, source = _source(b)
    return built(b, [_hidden(b, architecture.embed_source(b, ids, source))])


def build_source_layer(
    architecture: EncoderDecoderFamily,
    index: int,
    tensors: TensorSource,
    scheme: WeightScheme,
    scales: ChannelScales = NO_SCALES,
    *,
    observe: bool = False,
) -> BuiltGraph:
    """hidden, input_ids, attention_mask -> hidden_out. `observe`: see edgellm_export.graphs.decoder.build_layer."""
    b = Build(architecture.shape, GraphBuilder(f"source_layer_{index}"), scheme, tensors, Channels(scales))
    _, source = _source(b)
    hidden = _hidden_input(b, "hidden")
    stream = architecture.source_layer(b, index, Stream(hidden), architecture.source_state(b, source))
    return built(b, [_hidden(b, stream), *(_observed(b) if observe else [])])


def build_source_norm(architecture: EncoderDecoderFamily, tensors: TensorSource, scheme: WeightScheme) -> BuiltGraph:
    """hidden -> hidden_out, the encoder's output."""
    b = Build(architecture.shape, GraphBuilder("source_norm"), scheme, tensors)
    hidden = architecture.source_norm(b, Stream(_hidden_input(b, "hidden")))
    return built(b, [_hidden(b, Stream(b.graph.op("Identity", hidden, name="/hidden/Identity")))])


def build_embedding(architecture: EncoderDecoderFamily, tensors: TensorSource, scheme: WeightScheme) -> BuiltGraph:
    """input_ids, decoder_attention_mask, encoder_attention_mask -> hidden_out."""
    b = Build(architecture.shape, GraphBuilder("embedding"), scheme, tensors)
    ids, target = _target(b)
    return built(b, [_hidden(b, architecture.embed(b, ids, target))])


def build_layer(
    architecture: EncoderDecoderFamily,
    index: int,
    tensors: TensorSource,
    scheme: WeightScheme,
    scales: ChannelScales = NO_SCALES,
    *,
    observe: bool = False,
) -> BuiltGraph:
    """hidden, source (the encoder's output), the masks, an empty past -> hidden_out. The keys and values of the source,
    which the package's encoder makes, are made here."""
    b = Build(architecture.shape, GraphBuilder(f"layer_{index}"), scheme, tensors, Channels(scales))
    _, target = _target(b)
    hidden, source = _hidden_input(b, "hidden"), _hidden_input(b, "source")
    cross = architecture.cross(b, index, source)
    target = architecture.target_state(b, target)
    stream, _ = architecture.layer(b, index, Stream(hidden), _past(b, index), cross, target)
    return built(b, [_hidden(b, stream), *(_observed(b) if observe else [])])


def build_final_norm(architecture: EncoderDecoderFamily, tensors: TensorSource, scheme: WeightScheme) -> BuiltGraph:
    """hidden -> hidden_out, ready for the head."""
    b = Build(architecture.shape, GraphBuilder("final_norm"), scheme, tensors)
    hidden = architecture.final_norm(b, Stream(_hidden_input(b, "hidden")))
    return built(b, [_hidden(b, Stream(b.graph.op("Identity", hidden, name="/hidden/Identity")))])


def build_head(architecture: EncoderDecoderFamily, tensors: TensorSource, scheme: WeightScheme) -> BuiltGraph:
    """hidden, normed -> logits. `tensors` may hold a part of the vocabulary only."""
    b = Build(architecture.shape, GraphBuilder("head"), scheme, tensors)
    logits = architecture.head(b, _hidden_input(b, "hidden"))
    return built(b, [(logits, "logits", ir.DataType.from_numpy(b.activation), ["rows", "positions", "vocab_size"])])


def _source(b: Build) -> tuple[ir.Value, SourceState]:
    g = b.graph
    ids = g.input("input_ids", INT64, ["sources", "source_length"])
    mask = g.input("attention_mask", INT64, ["sources", "source_length"])
    narrow = g.op("Cast", mask, name="/encoder/mask/Cast", to=int(INT32))
    length = g.op("Shape", ids, name="/encoder/length/Shape", start=1, end=2)
    end = g.op("Squeeze", length, g.ints(0), name="/encoder/length/Squeeze")
    return ids, SourceState(narrow, _range(b, _scalar(b, 0), end, "/encoder/positions"))


def _target(b: Build) -> tuple[ir.Value, TargetState]:
    g, place = b.graph, "/decoder"
    ids = g.input("input_ids", INT64, ["rows", "target_length"])
    mask = g.input("decoder_attention_mask", INT64, ["rows", "total_length"])
    source_mask = g.input("encoder_attention_mask", INT64, ["sources", "source_length"])
    lengths = g.op("ReduceSum", mask, g.ints(1), name=f"{place}/lengths/ReduceSum", keepdims=0)
    last = g.op("Sub", lengths, g.ints(1), name=f"{place}/seqlens/Sub")
    width = g.op("Shape", mask, name=f"{place}/total/Shape", start=1, end=2)
    end = g.op("Squeeze", width, g.ints(0), name=f"{place}/total/Squeeze")
    length = g.op("Shape", ids, name=f"{place}/length/Shape", start=1, end=2)
    start = g.op("Sub", end, g.op("Squeeze", length, g.ints(0), name=f"{place}/length/Squeeze"), name=f"{place}/Start")
    return ids, TargetState(
        seqlens=g.op("Cast", last, name=f"{place}/seqlens/Cast", to=int(INT32)),
        total=g.op("Cast", end, name=f"{place}/total/Cast", to=int(INT32)),
        positions=_range(b, start, end, f"{place}/positions"),
        mask=g.op("Cast", source_mask, name=f"{place}/source_mask/Cast", to=int(INT32)),
        sources=g.op("Shape", source_mask, name=f"{place}/sources/Shape", start=0, end=1),
        rows=g.op("Shape", ids, name=f"{place}/rows/Shape", start=0, end=1),
    )


def _range(b: Build, start: ir.Value, end: ir.Value, place: str) -> ir.Value:
    return b.graph.op("Range", start, end, _scalar(b, 1), name=f"{place}/Range")


def _scalar(b: Build, value: int) -> ir.Value:
    return b.graph.constant(f"/constants/{value}", np.array(value, np.int64))


def _last_positions(b: Build, stream: Stream, keep: ir.Value) -> Stream:
    """The stream's last `keep` positions: only they go through the final norm and the head."""
    g = b.graph
    start = g.op("Neg", keep, name="/decoder/keep/Neg")

    def cut(value: ir.Value, part: str) -> ir.Value:
        return g.op(
            "Slice", value, start, g.ints(np.iinfo(np.int64).max), g.ints(1), name=f"/decoder/keep/{part}/Slice"
        )

    return Stream(cut(stream.residual, "residual"), None if stream.delta is None else cut(stream.delta, "delta"))


def _past(b: Build, index: int) -> LayerCache:
    dtype, shape = _cache_type(b, "rows", "past_length")
    key, value = (b.graph.input(PAST.format(index, side), dtype, shape) for side in SIDES)
    return LayerCache(key, value)


def _cross_inputs(b: Build, index: int) -> CrossState:
    dtype, shape = _cache_type(b, "sources", "source_length")
    key, value = (b.graph.input(CROSS_PAST.format(index, side), dtype, shape) for side in SIDES)
    return CrossState(key, value)


def _cache_outputs(b: Build, pattern: str, index: int, cache: CrossState | LayerCache, length: str) -> list[Output]:
    dtype, shape = _cache_type(b, "rows" if isinstance(cache, LayerCache) else "sources", length)
    return [(getattr(cache, side), pattern.format(index, side), dtype, [*shape]) for side in SIDES]


def _cache_type(b: Build, first: str, length: str) -> tuple[ir.DataType, list[int | str]]:
    return ir.DataType.from_numpy(b.activation), [first, b.shape.num_kv_heads, length, b.shape.head_dim]


def _hidden_input(b: Build, name: str) -> ir.Value:
    dtype = ir.DataType.from_numpy(b.activation)
    return b.graph.input(name, dtype, [f"{name}_rows", f"{name}_length", b.shape.hidden_size])


def _hidden(b: Build, stream: Stream) -> Output:
    value = (
        stream.residual
        if stream.delta is None
        else b.graph.op("Add", stream.residual, stream.delta, name="/hidden/Add")
    )
    shape: list[int | str | None] = ["rows", "length", b.shape.hidden_size]
    return value, "hidden_out", ir.DataType.from_numpy(b.activation), shape


def _observed(b: Build) -> Sequence[Any]:
    """The values that linear layers read, under their own names."""
    dtype = ir.DataType.from_numpy(b.activation)
    read = dict.fromkeys(projection.x for projection in b.channels.projections)
    return [(x, str(x.name), dtype, ["rows", "length", None]) for x in read if x.name not in ("hidden", "source")]
