"""An encoder's attention to the tokens nearby: texts are cut into blocks that see themselves and both their neighbours,
so that time and memory grow with a text's length and not with its square. A block has at least as many tokens as a
token sees to either side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgellm.errors import UnsupportedModelError
from edgellm.types import FloatArray
from edgellm_export.blocks.attention import multi_head
from edgellm_export.blocks.build import Build, Heads, node
from edgellm_export.blocks.near import least

MASKED = -1e30  # added to the scores of padding
END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Blocks:
    """A batch of texts [B, T], cut into blocks of `length` tokens. pads: how many fill the last block up, [1] int64.
    texts, tokens: B and T, [1] int64 each. keys: [B * blocks, 3 * length] int32, ones for tokens."""

    length: int
    pads: ir.Value
    texts: ir.Value
    tokens: ir.Value
    keys: ir.Value


@dataclass(frozen=True)
class Beside:
    """What all tokens of a text see besides: keys and values [B, G, N * head_dim]. seen: [B, G] int32, ones where there
    is something. bias: [B, N, T, G], added to the scores; None for nothing."""

    key: ir.Value
    value: ir.Value
    seen: ir.Value
    bias: ir.Value | None = None


def cut(b: Build, mask: ir.Value, length: int) -> Blocks:
    """Shared by all layers. mask: [B, T] int32, ones for tokens, then zeros."""
    if b.attentions is not None:
        raise UnsupportedModelError("edgellm has no attention weights of attention in blocks; leave out --attentions")
    g, root = b.graph, f"/blocks_{length}"
    known = g.lookup(root)
    if known is None:
        texts, tokens = (
            g.op("Shape", mask, start=axis, end=axis + 1, name=f"{root}/{name}/Shape")
            for axis, name in enumerate(("texts", "tokens"))
        )
        pads = g.op("Mod", g.op("Neg", tokens, name=f"{root}/Neg"), g.ints(length), name=f"{root}/Mod")
        made = Blocks(length, pads, texts, tokens, mask)
        known = (pads, texts, tokens, _with_neighbours(b, made, mask, f"{root}/keys", ()))
        g.remember(root, known)
    pads, texts, tokens, keys = known
    return Blocks(length, pads, texts, tokens, keys)


def band(b: Build, table: FloatArray, length: int, place: str) -> ir.Value:
    """A bias [1, heads, length, 3 * length] for a block's queries, and its keys and its neighbours'. table: [heads, 2 *
    reach + 1], by key's minus query's position; keys further away are not seen. reach: at most `length`. Shared by all
    layers that ask for it at one `place`."""
    g, reach, known = b.graph, table.shape[1] // 2, b.graph.lookup(place)
    if known is None:
        far = np.full((len(table), 1), least(b.activation), np.float32)
        rows = np.concatenate([far, table, far], 1).astype(b.activation)
        queries, keys = (
            g.op("Range", g.scalar(start), g.scalar(stop), g.scalar(1), name=f"{place}/{name}/Range")
            for name, start, stop in (("queries", length, 2 * length), ("keys", 0, 3 * length))
        )
        away = g.op("Sub", keys, g.op("Unsqueeze", queries, g.ints(1), name=f"{place}/Unsqueeze"), name=f"{place}/Sub")
        index = g.op("Add", away, g.ints(reach + 1), name=f"{place}/Add")
        index = g.op("Max", index, g.ints(0), name=f"{place}/Max")
        index = g.op("Min", index, g.ints(2 * reach + 2), name=f"{place}/Min")
        bias = g.op("Gather", g.array(f"{place[1:]}.table", rows), index, name=f"{place}/Gather", axis=1)
        known = (g.op("Unsqueeze", bias, g.ints(0), name=f"{place}/Batch"),)
        g.remember(place, known)
    return known[0]


def local_attention(
    b: Build, qkv: Sequence[ir.Value], heads: Heads, blocks: Blocks, bias: ir.Value, name: str,
    beside: Beside | None = None,
) -> ir.Value:  # fmt: skip
    """qkv: three values [B, T, N * head_dim], as the result. bias: `band`'s."""
    place, size, seen = node(name), heads.query_size, blocks.keys
    query = _filled(b, blocks, qkv[0], f"{place}/q", (size,))
    key, value = (
        _with_neighbours(b, blocks, x, f"{place}/{side}", (size,)) for side, x in zip("kv", qkv[1:], strict=True)
    )
    if beside is not None:
        key = _and_beside(b, blocks, key, beside.key, f"{place}/k/beside", (size,))
        value = _and_beside(b, blocks, value, beside.value, f"{place}/v/beside", (size,))
        seen = _and_beside(b, blocks, seen, beside.seen, f"{place}/seen/beside", ())
        if beside.bias is None:
            bias = _with_nothing_beside(b, bias, beside.seen)
        else:
            bias = _with_bias_beside(b, blocks, bias, beside.bias, heads.num_heads)
    options: dict[str, Any] = {} if heads.scale is None else {"scale": heads.scale}
    options |= {"num_heads": heads.num_heads, "mask_filter_value": MASKED}
    y = multi_head(b, query, key, value, None, seen, bias, place=place, kept=None, **options)
    return _joined(b, blocks, y, size, place)


def behind_first(b: Build, mask: ir.Value) -> ir.Value:
    """The mask [B, T] without the first token of each text. Shared by all layers."""
    g, root = b.graph, "/behind_first"
    known = g.lookup(root)
    if known is None:
        others = g.op("Slice", mask, g.ints(1), g.ints(END), g.ints(1), name=f"{root}/Slice")
        known = (g.op("Pad", others, g.ints(0, 1, 0, 0), name=f"{root}/Pad"),)
        g.remember(root, known)
    return known[0]


def first(b: Build, qkv: Sequence[ir.Value], mask: ir.Value, name: str) -> Beside:
    """The first token of each text, which `behind_first` leaves out. qkv: see local_attention. mask: [B, T]."""
    g, place = b.graph, f"{node(name)}/first"
    key, value, seen = (
        g.op("Slice", x, g.ints(0), g.ints(1), g.ints(1), name=f"{place}/{part}/Slice")
        for part, x in (("k", qkv[1]), ("v", qkv[2]), ("seen", mask))
    )
    return Beside(key, value, seen)


def _filled(b: Build, blocks: Blocks, x: ir.Value, place: str, rest: tuple[int, ...]) -> ir.Value:
    """[B, T, *rest] as [B * blocks, length, *rest]."""
    filled = _padded(b, x, 0, blocks.pads, place, len(rest))
    return b.graph.op("Reshape", filled, b.graph.ints(-1, blocks.length, *rest), name=f"{place}/Blocks")


def _with_neighbours(b: Build, blocks: Blocks, x: ir.Value, place: str, rest: tuple[int, ...]) -> ir.Value:
    """[B, T, *rest] as [B * blocks, 3 * length, *rest]: each block between its neighbours, zeros at the ends."""
    g, length = b.graph, blocks.length
    behind = g.op("Add", blocks.pads, g.ints(length), name=f"{place}/Behind")
    filled = _padded(b, x, length, behind, place, len(rest))
    rows = g.op("Reshape", filled, g.ints(0, -1, length, *rest), name=f"{place}/Blocks")  # [B, blocks + 2, length, ...]
    shifted = [
        g.op("Slice", rows, g.ints(start), g.ints(stop), g.ints(1), name=f"{place}/Slice.{start}")
        for start, stop in ((0, -2), (1, -1), (2, END))
    ]
    joined = g.op("Concat", *shifted, axis=2, name=f"{place}/Neighbours")
    return g.op("Reshape", joined, g.ints(-1, 3 * length, *rest), name=f"{place}/Flat")


def _padded(b: Build, x: ir.Value, before: int, behind: ir.Value, place: str, more: int) -> ir.Value:
    """x [B, T, ...] with zeros before and behind its tokens. more: how many dimensions follow."""
    g, none = b.graph, [0] * more
    parts = [g.ints(0, before, *none, 0), behind, *([g.ints(*none)] if none else [])]
    return g.op("Pad", x, g.op("Concat", *parts, axis=0, name=f"{place}/Pads"), name=f"{place}/Pad")


def _and_beside(b: Build, blocks: Blocks, near: ir.Value, x: ir.Value, place: str, rest: tuple[int, ...]) -> ir.Value:
    """`near` [B * blocks, 3 * length, *rest], and behind each block's what its text has beside it, x [B, G, *rest]."""
    g, counted = b.graph, _counted(b, blocks)
    own = g.op("Shape", x, start=1, name=f"{place}/Shape")
    wide = g.op("Concat", blocks.texts, counted.each, own, axis=0, name=f"{place}/Wide")
    each = g.op("Expand", g.op("Unsqueeze", x, g.ints(1), name=f"{place}/Unsqueeze"), wide, name=f"{place}/Expand")
    flat = g.op("Concat", counted.all, own, axis=0, name=f"{place}/Flat")
    rows = g.op("Reshape", each, flat, name=f"{place}/Rows", allowzero=1)
    return g.op("Concat", near, rows, axis=1, name=f"{place}/Join")


def _with_nothing_beside(b: Build, bias: ir.Value, seen: ir.Value) -> ir.Value:
    """[1, 1, length, 3 * length + G], shared by all layers with this bias."""
    g, root = b.graph, f"/beside/{bias.name}"
    known = g.lookup(root)
    if known is None:
        own = g.op("Shape", seen, start=1, name=f"{root}/Shape")
        pads = g.op("Concat", g.ints(0, 0, 0, 0, 0, 0, 0), own, axis=0, name=f"{root}/Pads")
        known = (g.op("Pad", bias, pads, name=f"{root}/Pad"),)
        g.remember(root, known)
    return known[0]


def _with_bias_beside(b: Build, blocks: Blocks, bias: ir.Value, beside: ir.Value, heads: int) -> ir.Value:
    """[B * blocks, N, length, 3 * length + G], shared by all layers."""
    g, length, root = b.graph, blocks.length, f"/blocks_{blocks.length}/bias"
    known = g.lookup(root)
    if known is None:
        counted = _counted(b, blocks)
        pads = g.op("Concat", g.ints(0, 0, 0, 0, 0, 0), blocks.pads, g.ints(0), axis=0, name=f"{root}/Pads")
        filled = g.op("Pad", beside, pads, name=f"{root}/Pad")
        own = g.op("Shape", beside, start=3, name=f"{root}/Shape")
        apart = g.op(
            "Concat", blocks.texts, g.ints(heads), counted.each, g.ints(length), own, axis=0, name=f"{root}/Apart"
        )
        split = g.op("Reshape", filled, apart, name=f"{root}/Blocks", allowzero=1)  # [B, N, blocks, length, G]
        turned = g.op("Transpose", split, perm=[0, 2, 1, 3, 4], name=f"{root}/Transpose")
        flat = g.op("Concat", counted.all, g.ints(heads, length), own, axis=0, name=f"{root}/Flat")
        rows = g.op("Reshape", turned, flat, name=f"{root}/Rows", allowzero=1)
        wide = g.op("Concat", counted.all, g.ints(heads, length, 3 * length), axis=0, name=f"{root}/Wide")
        near = g.op("Expand", bias, wide, name=f"{root}/Expand")
        known = (g.op("Concat", near, rows, axis=3, name=f"{root}/Join"),)
        g.remember(root, known)
    return known[0]


@dataclass(frozen=True)
class _Counted:
    """Blocks that each text has, and all texts together: [1] int64 each."""

    each: ir.Value
    all: ir.Value


def _counted(b: Build, blocks: Blocks) -> _Counted:
    g, root = b.graph, f"/blocks_{blocks.length}/count"
    known = g.lookup(root)
    if known is None:
        filled = g.op("Add", blocks.tokens, blocks.pads, name=f"{root}/Add")
        each = g.op("Div", filled, g.ints(blocks.length), name=f"{root}/Div")
        known = (each, g.op("Mul", blocks.texts, each, name=f"{root}/Mul"))
        g.remember(root, known)
    return _Counted(*known)


def _joined(b: Build, blocks: Blocks, y: ir.Value, size: int, place: str) -> ir.Value:
    """[B * blocks, length, size] as [B, T, size]."""
    g = b.graph
    shape = g.op("Concat", blocks.texts, g.ints(-1, size), axis=0, name=f"{place}/Rows")
    rows = g.op("Reshape", y, shape, name=f"{place}/Texts")
    return g.op("Slice", rows, g.ints(0), blocks.tokens, g.ints(1), name=f"{place}/Slice")
