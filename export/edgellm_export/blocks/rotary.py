"""Rotary embeddings in the graph: as tables for GroupQueryAttention, or as operators before it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgellm_export.blocks.build import BatchState, Build, Heads, node
from edgellm_export.blocks.rope import DynamicRope, LongRope, Rope, StaticRope
from edgellm_export.onnx.builder import MICROSOFT


def tables(b: Build, rope: StaticRope, positions: int) -> tuple[ir.Value, ir.Value]:
    """cos and sin initializers, shared by all layers of the same rope."""
    label = f"rope.{zlib.crc32(rope.inv_freq.tobytes() + np.float64(rope.attention_factor).tobytes()):08x}"
    if f"{label}.cos" in b.graph.stored:
        return b.graph.stored[f"{label}.cos"].value, b.graph.stored[f"{label}.sin"].value
    cos, sin = rope.tables(positions)
    return b.graph.array(f"{label}.cos", cos.astype(b.activation)), b.graph.array(
        f"{label}.sin", sin.astype(b.activation)
    )


def tables_as_long_as(b: Build, rope: StaticRope, x: ir.Value, place: str) -> tuple[ir.Value, ir.Value]:
    """cos and sin [T, rotary_dim / 2] for all of x [B, T, size], computed in the graph, so that there is no longest
    one. Shared by all layers."""
    g = b.graph
    if known := g.lookup(place):
        return known[0], known[1]
    length = g.op("Shape", x, name=f"{place}/Shape", start=1, end=2)
    end = g.op("Squeeze", length, g.ints(0), name=f"{place}/Squeeze")
    whole = g.op("Range", g.scalar(0), end, g.scalar(1), name=f"{place}/Range")
    floats = g.op("Cast", whole, name=f"{place}/Cast", to=int(ir.DataType.FLOAT))
    column = g.op("Unsqueeze", floats, g.ints(1), name=f"{place}/Unsqueeze")
    angles = g.op("Mul", column, g.constant(f"{place}.inv_freq", rope.inv_freq), name=f"{place}/Mul")
    cos, sin = (_scaled_wave(b, angles, kind, rope.attention_factor, place) for kind in ("Cos", "Sin"))
    g.remember(place, (cos, sin))
    return cos, sin


def turned_neighbours(
    b: Build, x: ir.Value, positions: ir.Value, cos_sin: tuple[ir.Value, ir.Value], num_heads: int, rotary_dim: int,
    name: str,
) -> ir.Value:  # fmt: skip
    """x [B, S, num_heads * head_dim], of whose heads the first `rotary_dim` channels are turned, neighbours together,
    by `positions` [B, S], or by those from one [1] on."""
    return _turned(b, x, positions, cos_sin, num_heads, name, rotary_embedding_dim=rotary_dim, interleaved=1)


def turned(b: Build, x: ir.Value, rope: StaticRope, positions: int, heads: int, name: str) -> ir.Value:
    """x [B, S, heads * head_dim] rotated by the positions from 0. positions: rows of the tables."""
    return _turned(b, x, b.graph.ints(0), tables(b, rope, positions), heads, name)


def _turned(
    b: Build, x: ir.Value, positions: ir.Value, cos_sin: tuple[ir.Value, ir.Value], heads: int, name: str,
    **options: int,
) -> ir.Value:  # fmt: skip
    place = f"{node(name)}/RotaryEmbedding"
    return b.graph.op(
        "RotaryEmbedding", x, positions, *cos_sin, name=place, num_heads=heads, domain=MICROSOFT, **options
    )


def rotate(
    b: Build, qkv: Sequence[ir.Value], heads: Heads, batch: BatchState, rope: Rope, positions: int, name: str
) -> list[ir.Value]:
    """Query and key rotated, by fixed tables of so many positions or by tables computed in the graph from each row's
    length; the value as it is."""
    g, place = b.graph, node(name)
    if len(qkv) == 1:
        sizes = g.ints(heads.query_size, heads.kv_size, heads.kv_size)
        qkv = g.ops("Split", qkv[0], sizes, name=f"{place}/SplitQKV", outputs=3, axis=-1)
    if isinstance(rope, StaticRope):
        (cos, sin), ids, rotary_dim = tables(b, rope, positions), batch.positions, 2 * len(rope.inv_freq)
    else:
        cos, sin, ids, rotary_dim = _length_dependent_tables(b, batch, rope)
    partial = {"rotary_embedding_dim": rotary_dim} if rotary_dim != heads.head_dim else {}
    rotated = [
        g.op(
            "RotaryEmbedding",
            x,
            ids,
            cos,
            sin,
            domain=MICROSOFT,
            name=f"{place}/{side}_rotary/RotaryEmbedding",
            num_heads=count,
            **partial,
        )
        for side, x, count in (("q", qkv[0], heads.num_heads), ("k", qkv[1], heads.num_kv_heads))
    ]
    return [*rotated, qkv[2]]


def _length_dependent_tables(
    b: Build, batch: BatchState, rope: DynamicRope | LongRope
) -> tuple[ir.Value, ir.Value, ir.Value, int]:
    """cos and sin [B * S, rotary_dim / 2] of the batch's own positions, row numbers [B, S] into them, rotary_dim."""
    g, root = b.graph, "/model/rope"
    known = g.lookup(f"{root}/tables")
    half = rope.rotary_dim // 2 if isinstance(rope, DynamicRope) else len(rope.short)
    if known:
        return known[0], known[1], known[2], 2 * half
    assert batch.positions is not None
    frequencies = (
        _dynamic_frequencies(b, batch, rope) if isinstance(rope, DynamicRope) else _long_frequencies(b, batch, rope)
    )
    positions = g.op("Cast", batch.positions, name=f"{root}/positions/Cast", to=int(ir.DataType.FLOAT))
    column = g.op("Unsqueeze", positions, g.ints(2), name=f"{root}/positions/Unsqueeze")  # [B, S, 1]
    angles = g.op("Mul", column, frequencies, name=f"{root}/angles/Mul")  # [B, S, half]
    flat = g.op("Reshape", angles, g.ints(-1, half), name=f"{root}/angles/Reshape")
    factor = 1.0 if isinstance(rope, DynamicRope) else rope.attention_factor
    cos, sin = (_scaled_wave(b, flat, op_type, factor, root) for op_type in ("Cos", "Sin"))
    ids = _row_numbers(b, batch.positions, flat, root)
    g.remember(f"{root}/tables", (cos, sin, ids))
    return cos, sin, ids, 2 * half


def _scaled_wave(b: Build, angles: ir.Value, op_type: str, factor: float, root: str) -> ir.Value:
    wave = b.graph.op(op_type, angles, name=f"{root}/{op_type}")
    scaled = b.graph.op(
        "Mul",
        wave,
        b.graph.constant("rope.attention_factor", np.array(factor, np.float32)),
        name=f"{root}/{op_type}/Mul",
    )
    return scaled if b.activation == np.float32 else b.graph.cast(scaled, b.activation, f"{root}/{op_type}/Cast")


def _row_numbers(b: Build, positions: ir.Value, flat: ir.Value, root: str) -> ir.Value:
    """0 .. B * S - 1 in the shape [B, S] of `positions`."""
    g = b.graph
    count = g.op("Shape", flat, name=f"{root}/count/Shape", start=0, end=1)
    scalar = g.op("Squeeze", count, g.ints(0), name=f"{root}/count/Squeeze")
    numbers = g.op("Range", g.scalar(0), scalar, g.scalar(1), name=f"{root}/rows/Range")
    return g.op("Reshape", numbers, g.op("Shape", positions, name=f"{root}/rows/Shape"), name=f"{root}/rows/Reshape")


def _row_lengths(b: Build, batch: BatchState) -> ir.Value:
    """[B, 1, 1] float32."""
    assert batch.lengths is not None
    floats = b.graph.op("Cast", batch.lengths, name="/model/rope/lengths/Cast", to=int(ir.DataType.FLOAT))
    return b.graph.op("Reshape", floats, b.graph.ints(-1, 1, 1), name="/model/rope/lengths/Reshape")


def _long_frequencies(b: Build, batch: BatchState, rope: LongRope) -> ir.Value:
    """[B, 1, half] float32: the long or the short frequencies, row by row."""
    g = b.graph
    limit = g.constant("rope.trained_length", np.array(rope.trained_length, np.float32))
    beyond = g.op("Greater", _row_lengths(b, batch), limit, name="/model/rope/beyond/Greater")
    long, short = (g.constant(f"rope.{k}_inv_freq", v) for k, v in (("long", rope.long), ("short", rope.short)))
    return g.op("Where", beyond, long, short, name="/model/rope/frequencies/Where")


def _dynamic_frequencies(b: Build, batch: BatchState, rope: DynamicRope) -> ir.Value:
    """[B, 1, half] float32: base' ** -(2i / d), with the base stretched by the row's length."""
    g, root, d = b.graph, "/model/rope/dynamic", rope.rotary_dim

    def apply(op_type: str, x: ir.Value, label: str, value: float) -> ir.Value:
        return g.op(
            op_type, x, g.constant(f"rope.dynamic.{label}", np.array(value, np.float32)), name=f"{root}/{label}"
        )

    length = apply("Max", _row_lengths(b, batch), "at_least", rope.trained_length)
    share = apply("Div", apply("Mul", length, "factor", rope.factor), "trained_length", rope.trained_length)
    stretch = apply("Sub", share, "factor_less_one", rope.factor - 1)
    base = apply("Mul", apply("Pow", stretch, "exponent", d / (d - 2)), "base", rope.base)
    exponents = g.constant("rope.dynamic.exponents", np.arange(0, d, 2, dtype=np.float32) / np.float32(d))
    return g.op("Reciprocal", g.op("Pow", base, exponents, name=f"{root}/base/Pow"), name=f"{root}/Reciprocal")
