"""The decoder once more, as optimum's ORTModelForSeq2SeqLM runs one: decoder_model_merged.onnx, a graph without weights
of its own. It reads those of the encoder's and the decoder's files.

Inputs: input_ids [R, S] int64, encoder_hidden_states [R, T, hidden], encoder_attention_mask [R, T] int64,
past_key_values.{i}.decoder.key and .value [R, N, past, head_dim], past_key_values.{i}.encoder.key and .value
[R, N, 0 or T, head_dim].
Outputs: logits [R, S, vocab] float32, present.{i}.decoder.key and .value, present.{i}.encoder.key and .value.

A source's keys and values are made in the first run, where none are given, and passed on from then: only those tokens
are projected that the given ones do not cover, which later is none.
"""

from __future__ import annotations

import onnx_ir as ir

from edgellm_export.architectures.contract import EncoderDecoderFamily
from edgellm_export.blocks.build import Build, LayerCache, Material, built
from edgellm_export.blocks.cross_attention import CrossState, TargetState
from edgellm_export.graphs.encoder_decoder import CROSS_PAST, CROSS_PRESENT, PAST, PRESENT
from edgellm_export.graphs.parts import END, INT32, INT64, SIDES, Output, float_logits
from edgellm_export.onnx.builder import BuiltGraph


def build_merged(family: EncoderDecoderFamily, material: Material) -> BuiltGraph:
    """Its matrices have the names and the content of those in `build_encoder` and `build_decoder`."""
    shape = family.shape
    b = material.build(shape, "decoder_merged")
    ids = b.graph.input("input_ids", INT64, ["batch_size", "decoder_sequence_length"])
    activation = b.activation_type
    source = ["batch_size", "encoder_sequence_length"]
    hidden = b.graph.input("encoder_hidden_states", activation, [*source, family.source_size])
    mask = b.graph.input("encoder_attention_mask", INT64, source)
    pasts = [(_past(b, PAST, i), _past(b, CROSS_PAST, i)) for i in range(shape.num_layers)]  # in optimum's order
    (first, _), (known, _) = pasts[0]
    new_source = _not_yet_projected(b, hidden, known)
    target = family.target_state(b, _target(b, ids, mask, first))
    stream = family.embed(b, ids, target)
    kept: list[int | str | None] = ["batch_size", shape.num_kv_heads, None, shape.head_dim]
    outputs: list[Output] = []
    for i, (own, across) in enumerate(pasts):
        made = family.cross(b, i, new_source)
        cross = CrossState(*(
            b.graph.op("Concat", past, new, name=f"/decoder/cross.{i}/{side}/Concat", axis=2)
            for side, past, new in zip(SIDES, across, (made.key, made.value), strict=True)
        ))  # fmt: skip
        stream, present = family.layer(b, i, stream, LayerCache(*own), cross, target)
        for pattern, cache in ((PRESENT, present), (CROSS_PRESENT, cross)):
            outputs += [(getattr(cache, side), pattern.format(i, side), activation, kept) for side in SIDES]
    logits = float_logits(b, family.head(b, family.final_norm(b, stream)))
    positions = ["batch_size", "decoder_sequence_length", shape.vocab_size]
    return built(b, [(logits, "logits", ir.DataType.FLOAT, positions), *outputs])


def _past(b: Build, pattern: str, index: int) -> tuple[ir.Value, ir.Value]:
    """One layer's keys and values, [R, N, length, head_dim]. Optimum takes the number and size of the heads from what
    config.json says of the encoder; where that is not so, its empty past has the wrong shape, and here gets the right
    one."""
    g = b.graph
    dtype, shape = b.activation_type, ["batch_size", "num_heads", "past_length", "head_size"]
    sides = []
    for side in SIDES:
        name = pattern.format(index, side)
        past = g.input(name, dtype, [f"{name}.{dim}" if i else dim for i, dim in enumerate(shape)])
        place = f"/decoder/{name}"
        size = g.op("Shape", past, name=f"{place}/Shape")
        rows, tokens = (g.op("Gather", size, g.ints(at), name=f"{place}/Gather.{at}") for at in (0, 2))
        heads, head_dim = g.ints(b.shape.num_kv_heads), g.ints(b.shape.head_dim)
        wanted = g.op("Concat", rows, heads, tokens, head_dim, name=f"{place}/Concat", axis=0)
        sides.append(g.op("Reshape", past, wanted, name=f"{place}/Reshape", allowzero=1))
    return sides[0], sides[1]


def _not_yet_projected(b: Build, hidden: ir.Value, past: ir.Value) -> ir.Value:
    """[R, T or 0, hidden]: the source's tokens behind those of the given keys."""
    known = b.graph.op("Shape", past, name="/decoder/source/Shape", start=2, end=3)
    return b.graph.op("Slice", hidden, known, b.graph.ints(END), b.graph.ints(1), name="/decoder/source/Slice")


def _target(b: Build, ids: ir.Value, mask: ir.Value, past: ir.Value) -> TargetState:
    """Rows of one length, a source for each."""
    g, place = b.graph, "/decoder"
    start = g.op("Shape", past, name=f"{place}/past/Shape", start=2, end=3)
    length = g.op("Shape", ids, name=f"{place}/length/Shape", start=1, end=2)
    rows = g.op("Shape", ids, name=f"{place}/rows/Shape", start=0, end=1)
    total = g.op("Add", start, length, name=f"{place}/total/Add")
    last = g.op("Cast", g.op("Sub", total, g.ints(1), name=f"{place}/last/Sub"), name=f"{place}/Cast", to=int(INT32))
    first, end = (
        g.op("Squeeze", value, g.ints(0), name=f"{place}/{name}/Squeeze")
        for name, value in (("start", start), ("total", total))
    )
    positions = g.op("Range", first, end, g.scalar(1), name=f"{place}/Range")
    return TargetState(
        seqlens=g.op("Expand", last, rows, name=f"{place}/seqlens/Expand"),
        total=g.op("Cast", end, name=f"{place}/total/Cast", to=int(INT32)),
        positions=g.op("Unsqueeze", positions, g.ints(0), name=f"{place}/positions/Unsqueeze"),
        mask=g.op("Cast", mask, name=f"{place}/source_mask/Cast", to=int(INT32)),
        sources=rows,
        rows=rows,
    )
