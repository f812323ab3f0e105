"""The two graphs of an encoder-decoder, whole or in segments. The contract is in docs/design.md.

Encoder: input_ids [B, T] int64, attention_mask [B, T] int64 (ones, then zeros)
-> last_hidden_state [B, T, hidden], which only other runtimes ask for, and present.{i}.encoder.key and .value
[B, N, T, head_dim] of each layer i of the decoder.

Decoder: input_ids [R, S] int64, decoder_attention_mask [R, total] int64 (ones, then zeros), encoder_attention_mask
[B, T] int64,
past_key_values.{i}.encoder.key and .value as the encoder gave them, past_key_values.{i}.decoder.key and .value
[R, N, capacity, head_dim], logits_to_keep [1] int64 (optional, 1)
-> logits [R, K, vocab] float32, present.{i}.decoder.key and .value; of speech also cross_queries.{i}
[R, S, N * head_dim] of those layers that tell when words are said.
The R rows are those of the B sources in turn, the same number for each. Several tokens at once are read by rows of one
length only.

Speech: the encoder has the input input_features [B, mel_bins, frames] float32 in the place of both of its own. T is
half of the frames, and the decoder's encoder_attention_mask has ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import onnx_ir as ir

from edgellm.package.layouts import CROSS_QUERIES
from edgellm_export.architectures.contract import EncoderDecoderFamily
from edgellm_export.blocks.build import Build, DecoderShape, LayerCache, Material, Stream, built
from edgellm_export.blocks.cross_attention import CrossState, SourceState, TargetState
from edgellm_export.graphs import parts
from edgellm_export.graphs.parts import INT32, INT64, SIDES, Output
from edgellm_export.onnx.builder import BuiltGraph

CROSS_PAST, CROSS_PRESENT = "past_key_values.{}.encoder.{}", "present.{}.encoder.{}"
PAST, PRESENT = "past_key_values.{}.decoder.{}", "present.{}.decoder.{}"

SourceInputs = Callable[[Build], tuple[ir.Value, SourceState]]


def build_encoder(
    family: EncoderDecoderFamily, material: Material, *, inputs: SourceInputs | None = None, attentions: bool = False
) -> BuiltGraph:
    """The whole encoder, and what each layer of the decoder reads of its output. `inputs`: other ones than tokens.
    `attentions`: and its layers' weights, attentions.{i} [B, N, T, T]."""
    b = material.build(family.shape, "encoder", attentions=attentions)
    given, source = (inputs or source_inputs)(b)
    source = family.source_state(b, source)
    stream = family.embed_source(b, given, source)
    for i in range(family.source_layers):
        stream = family.source_layer(b, i, stream, source)
    hidden = family.source_norm(b, stream)
    size = family.source_size
    outputs: list[Output] = [(hidden, "last_hidden_state", b.activation_type, ["sources", "source_length", size])]
    for i in range(family.shape.num_layers):
        outputs += _cache_outputs(b, CROSS_PRESENT, i, family.cross(b, i, hidden), "source_length")
    return built(b, outputs)


def build_decoder(
    family: EncoderDecoderFamily, material: Material, *, attentions: bool = False, queries: Sequence[int] = ()
) -> BuiltGraph:
    """The whole decoder. `attentions`: with its layers' weights, attentions.{i} and, of a row, cross_attentions.{i}.
    `queries`: layers whose cross_queries.{i} are outputs, too; they are there anyway."""
    shape = family.shape
    b = material.build(shape, "decoder", attentions=attentions)
    ids, target = target_inputs(b)
    keep = parts.logits_to_keep(b)
    target = family.target_state(b, target)
    stream = family.embed(b, ids, target)
    layers = [(_cross_inputs(b, i), _past(b, i)) for i in range(shape.num_layers)]
    outputs: list[Output] = []
    for i, (cross, cache) in enumerate(layers):
        stream, present = family.layer(b, i, stream, cache, cross, target)
        outputs += _cache_outputs(b, PRESENT, i, present, "total_length")
    size = shape.num_kv_heads * shape.head_dim
    for i in queries:
        name = f"{CROSS_QUERIES}{i}"
        outputs.append((b.cross_queries[i], name, b.activation_type, ["rows", "target_length", size]))
    logits = parts.last_logits(b, family, stream, keep, "/decoder")
    return built(b, [(logits, "logits", ir.DataType.FLOAT, ["rows", "positions", shape.vocab_size]), *outputs])


def build_source_layer(
    family: EncoderDecoderFamily, index: int, material: Material, *, tokens: bool = True, observe: bool = False
) -> BuiltGraph:
    """hidden, input_ids, attention_mask, or without `tokens` hidden alone -> see `layer_segment`."""
    b = material.build(source_shape(family), f"source_layer_{index}")
    source = source_inputs(b)[1] if tokens else SourceState()
    stream = family.source_layer(b, index, Stream(parts.hidden_input(b)), family.source_state(b, source))
    return parts.layer_segment(b, stream, observe=observe)


def build_layer(family: EncoderDecoderFamily, index: int, material: Material, *, observe: bool = False) -> BuiltGraph:
    """hidden, source (the encoder's output), the masks, an empty past -> see `layer_segment`. The keys and values of
    the source, which the package's encoder makes, are made here."""
    b = material.build(family.shape, f"layer_{index}")
    _, target = target_inputs(b)
    hidden, source = parts.hidden_input(b), parts.hidden_input(b, "source", family.source_size)
    cross = family.cross(b, index, source)
    target = family.target_state(b, target)
    stream, _ = family.layer(b, index, Stream(hidden), _past(b, index), cross, target)
    return parts.layer_segment(b, stream, observe=observe)


def source_shape(family: EncoderDecoderFamily) -> DecoderShape:
    """What segments of the encoder are built with."""
    return replace(family.shape, hidden_size=family.source_size)


def feature_inputs(b: Build, mel_bins: int, frames: int | str) -> tuple[ir.Value, SourceState]:
    """Of speech, all of it: nothing is padding to the encoder."""
    return b.graph.input("input_features", parts.FLOAT, ["sources", mel_bins, frames]), SourceState()


def source_inputs(b: Build) -> tuple[ir.Value, SourceState]:
    g = b.graph
    ids = g.input("input_ids", INT64, ["sources", "source_length"])
    mask = g.input("attention_mask", INT64, ["sources", "source_length"])
    narrow = g.op("Cast", mask, name="/encoder/mask/Cast", to=int(INT32))
    length = g.op("Shape", ids, name="/encoder/length/Shape", start=1, end=2)
    end = g.op("Squeeze", length, g.ints(0), name="/encoder/length/Squeeze")
    return ids, SourceState(narrow, _range(b, b.graph.scalar(0), end, "/encoder/positions"))


def target_inputs(b: Build) -> tuple[ir.Value, TargetState]:
    g, place = b.graph, "/decoder"
    ids = g.input("input_ids", INT64, ["rows", "target_length"])
    mask = g.input("decoder_attention_mask", INT64, ["rows", "total_length"])
    source_mask = g.input("encoder_attention_mask", INT64, ["sources", "source_length"])
    lengths = g.op("ReduceSum", mask, g.ints(1), name=f"{place}/lengths/ReduceSum", keepdims=0)
    last = g.op("Sub", lengths, g.ints(1), name=f"{place}/seqlens/Sub")
    width = g.op("Shape", mask, name=f"{place}/total/Shape", start=1, end=2)
    end = g.op("Squeeze", width, g.ints(0), name=f"{place}/total/Squeeze")
    length = g.op("Shape", ids, name=f"{place}/length/Shape", start=1, end=2)
    starts = g.op(
        "Unsqueeze", g.op("Sub", lengths, length, name=f"{place}/starts/Sub"), g.ints(1), name=f"{place}/Starts"
    )
    count = g.op("Squeeze", length, g.ints(0), name=f"{place}/length/Squeeze")
    steps = _range(b, g.scalar(0), count, f"{place}/steps")
    return ids, TargetState(
        seqlens=g.op("Cast", last, name=f"{place}/seqlens/Cast", to=int(INT32)),
        total=g.op("Cast", end, name=f"{place}/total/Cast", to=int(INT32)),
        positions=g.op("Add", starts, steps, name=f"{place}/positions/Add"),
        mask=g.op("Cast", source_mask, name=f"{place}/source_mask/Cast", to=int(INT32)),
        sources=g.op("Shape", source_mask, name=f"{place}/sources/Shape", start=0, end=1),
        rows=g.op("Shape", ids, name=f"{place}/rows/Shape", start=0, end=1),
    )


def _range(b: Build, start: ir.Value, end: ir.Value, place: str) -> ir.Value:
    return b.graph.op("Range", start, end, b.graph.scalar(1), name=f"{place}/Range")


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
    return b.activation_type, [first, b.shape.num_kv_heads, length, b.shape.head_dim]
