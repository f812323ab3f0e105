"""A short causal convolution over tokens, channel by channel, in the place of attention (LFM2).

The cache has what the convolution read of the last tokens, token i in slot i modulo their number, which may be any from
the tokens of a run and the K - 1 before them on. Each output is a sum of products in one order, whatever is computed
beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgellm.errors import UnsupportedModelError
from edgellm.types import FloatArray
from edgellm_export.blocks.build import BatchState, Build, LayerCache, node
from edgellm_export.blocks.layers import linear
from edgellm_export.checkpoint.tensors import RowSlice

END = np.iinfo(np.int64).max


def gated_short_conv(
    b: Build, x: ir.Value, name: str, kernel: int, cache: LayerCache, batch: BatchState, *, bias: bool
) -> tuple[ir.Value, LayerCache]:
    """out_proj(C * conv(B * v)) with [B, C, v] = in_proj(x): [B, S, hidden_size] to the same, and the present cache.
    `kernel`: tokens that the convolution reads."""
    if batch.both_ways is not None:
        raise UnsupportedModelError("edgellm builds short convolutions only of the tokens before")
    size, g, place, made = b.shape.hidden_size, b.graph, node(name), f"{name}.gated"
    matrix = b.tensors.take(f"{name}.in_proj.weight", (3 * size, size))
    vector = b.vector(f"{name}.in_proj.bias", 3 * size) if bias else np.zeros(0, np.float32)

    def part(index: int, label: str, origin: str = "") -> ir.Value:
        """A third of in_proj, whose rows make the channels of `origin`, if that is one."""
        start, stop, own = index * size, (index + 1) * size, f"{name}.in_proj.{label}"
        rows = b.channels.divided_rows(origin, RowSlice(f"{own}.weight", matrix, start, stop))
        return b.project(x, rows, b.channels.divided(origin, vector[start:stop]) if bias else None, own)

    before, behind, value = part(0, "before"), part(1, "behind", made), part(2, "value")
    read = g.op("Mul", before, value, name=f"{place}/before/Mul")
    taps = b.tensors.take(f"{name}.conv.weight", (size, 1, kernel)).rows(0, size).reshape(size, kernel)
    conv_bias = b.vector(f"{name}.conv.bias", size) if bias else None
    y, present = short_conv(b, read, taps, conv_bias, cache, batch, f"{name}.conv")
    y = b.channels.made(g.op("Mul", behind, y, name=f"{place}/behind/Mul"), made)
    return linear(b, y, f"{name}.out_proj", size, size, bias=bias), present


def short_conv(
    b: Build, x: ir.Value, taps: FloatArray, bias: FloatArray | None, cache: LayerCache, batch: BatchState, name: str
) -> tuple[ir.Value, LayerCache]:
    """sum over k of x[t - K + 1 + k] * taps[:, k], and the bias. x: [B, S, C]. taps: [C, K]. bias: [C]. Returns
    [B, S, C] and the present cache."""
    count, place = taps.shape[1], node(name)
    window, present = (
        begun(b, x, count, place) if cache.conv is None else _behind(b, x, count, cache.conv, batch, place)
    )
    return summed(b, window, taps, bias, name), LayerCache(conv=present)


def summed(b: Build, window: ir.Value, taps: FloatArray, bias: FloatArray | None, name: str) -> ir.Value:
    """The convolution of window [B, K - 1 + S, C], a sum of products with each tap in one order: [B, S, C]."""
    count, g, place = taps.shape[1], b.graph, node(name)
    total: ir.Value | None = None
    for k in range(count):
        last = k == count - 1
        shifted = g.op(
            "Slice", window, g.ints(k), g.ints(END if last else k + 1 - count), g.ints(1), name=f"{place}/{k}/Slice"
        )
        tap = g.array(f"{name}.taps.{k}", np.ascontiguousarray(taps[:, k]).astype(b.activation))
        term = g.op("Mul", shifted, tap, name=f"{place}/{k}/Mul")
        total = term if total is None else g.op("Add", total, term, name=f"{place}/{k}/Add")
    assert total is not None
    if bias is not None:
        total = g.op("Add", total, g.array(f"{name}.bias", bias.astype(b.activation)), name=f"{place}/bias/Add")
    return total


def begun(b: Build, x: ir.Value, count: int, place: str) -> tuple[ir.Value, None]:
    """[B, K - 1 + S, C]: x behind zeros, where nothing is past."""
    return b.graph.op("Pad", x, b.graph.ints(0, count - 1, 0, 0, 0, 0), name=f"{place}/Pad"), None


def _behind(
    b: Build, x: ir.Value, count: int, past: ir.Value, batch: BatchState, place: str
) -> tuple[ir.Value, ir.Value]:
    """[B, K - 1 + S, C]: x behind what is past, and the cache with x in it."""
    g = b.graph
    written, read, exists = _places(b, x, count, past, batch)
    present = g.op("ScatterND", past, written, x, name=f"{place}/ScatterND")
    found = g.op("GatherND", present, read, name=f"{place}/GatherND")
    nothing = g.constant("/short_conv/nothing", np.zeros(1, b.activation))
    return g.op("Where", exists, found, nothing, name=f"{place}/Where"), present


def _places(b: Build, x: ir.Value, count: int, past: ir.Value, batch: BatchState) -> tuple[ir.Value, ...]:
    """The places in the cache, (row, 0, slot), of the S tokens and of these and the K - 1 before them, [B, .., 3];
    and which of the latter there are, [B, K - 1 + S, 1]. The same for all layers."""
    g, root = b.graph, f"/short_conv/{count}"
    known = g.lookup(root)
    if known is not None:
        return known

    def op(kind: str, label: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        return g.op(kind, *inputs, name=f"{root}/{label}", **attributes)

    length = op("Squeeze", "length/Squeeze", op("Shape", "length/Shape", x, start=1, end=2), g.ints(0))
    wide = op("Add", "wide/Add", length, g.scalar(count - 1))
    last = op("Unsqueeze", "last/Unsqueeze", op("Cast", "last", batch.seqlens, to=int(ir.DataType.INT64)), g.ints(1))
    back = op("Range", "back/Range", op("Sub", "back/Sub", g.scalar(1), wide), g.scalar(1), g.scalar(1))
    positions = op("Add", "positions/Add", last, back)  # [B, K - 1 + S]
    exists = op("Unsqueeze", "exists/Unsqueeze", op("GreaterOrEqual", "exists", positions, g.scalar(0)), g.ints(2))
    capacity = op("Shape", "capacity/Shape", past, start=2, end=3)
    there = op("Mod", "slots/Mod", op("Max", "slots/Max", positions, g.scalar(0)), capacity)
    slots = op("Unsqueeze", "slots/Unsqueeze", there, g.ints(2))
    rows = op("Squeeze", "rows/Squeeze", op("Shape", "rows/Shape", past, start=0, end=1), g.ints(0))
    numbers = op("Range", "rows/Range", g.scalar(0), rows, g.scalar(1))
    shape = op("Shape", "slots/Shape", slots)
    row = op("Expand", "rows/Expand", op("Unsqueeze", "rows/Unsqueeze", numbers, g.ints(1, 2)), shape)
    read = op("Concat", "read/Concat", row, op("Mul", "head/Mul", slots, g.scalar(0)), slots, axis=-1)
    written = op("Slice", "written/Slice", read, g.ints(count - 1), g.ints(END), g.ints(1))
    g.remember(root, (written, read, exists))
    return written, read, exists
