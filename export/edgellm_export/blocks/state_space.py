"""A state space in the place of attention: Mamba-2 (Dao and Gu, arXiv 2405.21060).

Each head has a state [head_dim, state_size], which a token lets decay and adds to: exp(dt * A) h + dt * x B^T, and
gives h C + D * x. The S tokens of a run are computed together, as products between them ([S, S], with the decay from
one to the other) and with the state before the first. A single token costs no more than the recurrence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgellm.errors import UnsupportedModelError
from edgellm.package.manifest import StateLayout
from edgellm.types import FloatArray
from edgellm_export.blocks import norms
from edgellm_export.blocks.build import BatchState, Build, LayerCache, node
from edgellm_export.blocks.layers import activate, linear
from edgellm_export.blocks.short_conv import END, begun, summed

LEAST, STEP = -128.0, 2.0**-8  # of decays; 256 tokens of the least have 2**23 steps, all in float32's 24 bits


@dataclass(frozen=True)
class StateSpace:
    """`groups`: of heads that share B and C. `bias`, `conv_bias`: of the layers before and behind, and of the
    convolution."""

    layout: StateLayout
    groups: int
    eps: float
    act: str
    bias: bool
    conv_bias: bool

    @property
    def size(self) -> int:
        """Channels of all heads."""
        return self.layout.num_heads * self.layout.head_dim


def state_layout(
    layers: Sequence[int], kernel: int, heads: int, head_dim: int, state_size: int, groups: int
) -> StateLayout:
    """What layers with such a state space keep of a row."""
    return StateLayout(tuple(layers), heads * head_dim + 2 * groups * state_size, kernel, heads, head_dim, state_size)


def state_space(
    b: Build, x: ir.Value, name: str, space: StateSpace, cache: LayerCache, batch: BatchState
) -> tuple[ir.Value, LayerCache]:
    """[B, S, hidden_size] to what norm and out_proj make of the heads, and the present cache."""
    if batch.both_ways is not None:
        raise UnsupportedModelError("edgellm builds state spaces only of the tokens before")
    g, place, layout, size = b.graph, node(name), space.layout, space.size
    parts = (size, layout.width, layout.num_heads)
    made = linear(b, x, f"{name}.in_proj", sum(parts), b.shape.hidden_size, bias=space.bias)
    gate, read, step = g.ops("Split", made, g.ints(*parts), name=f"{place}/Split", outputs=3, axis=-1)
    read, conv = _convolved(b, read, name, space, cache, batch)
    y, ssm = _scan(b, read, step, name, space, cache, batch)
    opened = activate(b, gate, "silu", f"{name}.gate")
    y = _group_norm(b, g.op("Mul", y, opened, name=f"{place}/gate/Mul"), f"{name}.norm", space)
    return linear(b, y, f"{name}.out_proj", b.shape.hidden_size, size, bias=space.bias), LayerCache(conv=conv, ssm=ssm)


def _convolved(
    b: Build, x: ir.Value, name: str, space: StateSpace, cache: LayerCache, batch: BatchState
) -> tuple[ir.Value, ir.Value | None]:
    """Of x, B and C together, [B, S, width] to the same, and the inputs that the next token reads."""
    g, name, width, before = b.graph, f"{name}.conv1d", space.layout.width, space.layout.kernel - 1
    place, present = node(name), None
    if cache.conv is None:
        window, _ = begun(b, x, before + 1, place)
    else:
        past = g.op("Squeeze", _known(b, x, cache.conv, batch, place), g.ints(1), name=f"{place}/past/Squeeze")
        window = g.op("Concat", past, x, name=f"{place}/Concat", axis=1)
        last = g.op("Slice", window, g.ints(-before), g.ints(END), g.ints(1), name=f"{place}/last/Slice")
        present = g.op("Unsqueeze", last, g.ints(1), name=f"{place}/last/Unsqueeze")
    taps = b.tensors.take(f"{name}.weight", (width, 1, before + 1)).rows(0, width).reshape(width, before + 1)
    bias = b.vector(f"{name}.bias", width) if space.conv_bias else None
    return activate(b, summed(b, window, taps, bias, name), space.act, f"{name}.act"), present


def _scan(
    b: Build, read: ir.Value, step: ir.Value, name: str, space: StateSpace, cache: LayerCache, batch: BatchState
) -> tuple[ir.Value, ir.Value | None]:
    """read: [B, S, width], x, B and C. step: [B, S, heads], dt. Returns [B, S, heads * head_dim] and the state."""
    g, place, s, groups = b.graph, f"{node(name)}/scan", space.layout, space.groups
    heads, channels, state = s.num_heads // groups, s.head_dim, s.state_size
    rows = heads * channels  # of a group

    def op(kind: str, label: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        return g.op(kind, *inputs, name=f"{place}/{label}", **attributes)

    def constant(label: str, values: FloatArray) -> ir.Value:
        return g.array(f"{name}.{label}", values.astype(np.float32))

    def apart(label: str, value: ir.Value, *shape: int) -> ir.Value:
        """[B, S, ...] to [B, *shape, S]."""
        split = op("Reshape", f"{label}/Reshape", value, g.ints(0, 0, *shape))
        return op("Transpose", f"{label}/Transpose", split, perm=[0, *range(2, 2 + len(shape)), 1])

    sizes = (space.size, groups * state, groups * state)
    x, into, out = g.ops("Split", read, g.ints(*sizes), name=f"{place}/Split", outputs=3, axis=-1)
    x = apart("x", x, groups, heads, channels)  # [B, G, H, P, S]
    into, out = apart("B", into, groups, state), apart("C", out, groups, state)  # [B, G, N, S]
    biased = op("Add", "dt/Add", step, constant("dt_bias", b.vector(f"{name}.dt_bias", s.num_heads)))
    dt = apart("dt", op("Softplus", "dt/Softplus", biased), groups, heads, 1)  # [B, G, H, 1, S]
    decay = -np.exp(b.vector(f"{name}.A_log", s.num_heads)).reshape(groups, heads, 1, 1)
    high, low = _sums(b, op("Mul", "decay/Mul", dt, constant("A", decay)), f"{place}/decay")  # [B, G, H, 1, S]

    def faded(label: str, until: Sequence[ir.Value], start: Sequence[ir.Value] = ()) -> ir.Value:
        """What is left at one place of what there was at another, or before the first."""
        parts = list(until)
        if start:
            pairs = zip(until, start, strict=True)
            parts = [op("Sub", f"{label}/{i}/Sub", *pair) for i, pair in enumerate(pairs)]
        return op("Exp", f"{label}/Exp", op("Add", f"{label}/Add", *parts))

    columns = [op("Transpose", f"{i}/Transpose", part, perm=[0, 1, 2, 4, 3]) for i, part in enumerate((high, low))]
    between = faded("between", (high, low), columns)  # [B, G, H, S from, S to]
    into = op("Transpose", "B/Rows/Transpose", into, perm=[0, 1, 3, 2])  # [B, G, S, N]
    seen = op("MatMul", "seen/MatMul", into, out)  # [B, G, S from, S to]
    shares = op("Mul", "shares/Mul", op("Unsqueeze", "seen/Unsqueeze", seen, g.ints(2)), between)
    # From later tokens nothing comes; what grew on the way to them may be infinite.
    shares = op("Where", "shares/Where", _earlier(b, read), shares, g.constant("/scan/zero", np.zeros(1, np.float32)))
    added = op("Mul", "added/Mul", x, dt)
    y = op("MatMul", "y/MatMul", added, shares)  # [B, G, H, P, S]
    present = None
    if cache.ssm is not None:
        known = op("Reshape", "known", _known(b, read, cache.ssm, batch, place), g.ints(0, groups, rows, state))
        from_known = op(
            "Reshape", "past/Reshape", op("MatMul", "past/MatMul", known, out), g.ints(0, 0, heads, channels, -1)
        )
        y = op("Add", "y/Add", y, op("Mul", "past/Mul", from_known, faded("past", (high, low))))
        total = [
            op("Slice", f"total/{i}/Slice", part, g.ints(-1), g.ints(END), g.ints(4))
            for i, part in enumerate((high, low))
        ]
        left = faded("left", total, (high, low))
        kept = op("Reshape", "kept/Reshape", op("Mul", "kept/Mul", added, left), g.ints(0, 0, rows, -1))
        new = op("MatMul", "new/MatMul", kept, into)
        shape = g.ints(0, s.num_heads, channels, state)
        stays = op("Reshape", "stays/Reshape", faded("stays", total), g.ints(0, s.num_heads, 1, 1))
        old = op("Mul", "old/Mul", op("Reshape", "old/Reshape", known, shape), stays)
        present = op("Add", "present/Add", old, op("Reshape", "new/Reshape", new, shape))
    skip = b.vector(f"{name}.D", s.num_heads).reshape(groups, heads, 1, 1)
    y = op("Add", "skip/Add", y, op("Mul", "skip/Mul", x, constant("D", skip)))
    y = op("Transpose", "y/Transpose", y, perm=[0, 4, 1, 2, 3])
    return op("Reshape", "y/Reshape", y, g.ints(0, 0, space.size)), present


def _sums(b: Build, decay: ir.Value, place: str) -> Sequence[ir.Value]:
    """What decay [.., S] adds up to until each token, as two values whose differences are exact where a difference of
    their sums would be rounded: whole steps of STEP, and the rest. A decay below LEAST leaves nothing in float32."""
    g = b.graph

    def number(value: float) -> ir.Value:
        return g.constant(f"/scan/{value}", np.array(value, np.float32))

    decay = g.op("Max", decay, number(LEAST), name=f"{place}/Max")
    steps = g.op("Round", g.op("Mul", decay, number(1 / STEP), name=f"{place}/Mul_1"), name=f"{place}/Round")
    high = g.op("Mul", steps, number(STEP), name=f"{place}/high/Mul")
    low = g.op("Sub", decay, high, name=f"{place}/low/Sub")
    sides = (("high", high), ("low", low))
    return [g.op("CumSum", value, g.scalar(-1), name=f"{place}/{side}/CumSum") for side, value in sides]


def _earlier(b: Build, x: ir.Value) -> ir.Value:
    """[S, S]: whether a token (first axis) stands no later than another. The same for all layers. x: [B, S, ..]."""
    g, root = b.graph, "/scan/earlier"
    known = g.lookup(root)
    if known is None:
        length = g.op(
            "Squeeze", g.op("Shape", x, name=f"{root}/Shape", start=1, end=2), g.ints(0), name=f"{root}/Squeeze"
        )
        places = g.op("Range", g.scalar(0), length, g.scalar(1), name=f"{root}/Range")
        column = g.op("Unsqueeze", places, g.ints(1), name=f"{root}/Unsqueeze")
        known = (g.op("LessOrEqual", column, places, name=f"{root}/LessOrEqual"),)
        g.remember(root, known)
    return known[0]


def _known(b: Build, x: ir.Value, past: ir.Value, batch: BatchState, place: str) -> ir.Value:
    """What is past, or zeros for rows that begin. All else reads this copy: what is present takes the memory of what is
    past. x: [B, S, ..]. past: [B, .., .., ..]."""
    g, root = b.graph, "/scan/begins"
    known = g.lookup(root)
    if known is None:
        length = g.op("Shape", x, name=f"{root}/Shape", start=1, end=2)
        last = g.op("Cast", batch.seqlens, name=f"{root}/Cast", to=int(ir.DataType.INT64))
        begins = g.op("Less", last, length, name=f"{root}/Less")  # as many tokens as are read
        known = (g.op("Unsqueeze", begins, g.ints(1, 2, 3), name=f"{root}/Unsqueeze"),)
        g.remember(root, known)
    zero = g.constant("/scan/zero", np.zeros(1, np.float32))
    return g.op("Where", known[0], zero, past, name=f"{place}/known/Where")


def _group_norm(b: Build, y: ir.Value, name: str, space: StateSpace) -> ir.Value:
    """RMS norm of each group of channels by itself."""
    weight, g, place = b.vector(f"{name}.weight", space.size), b.graph, node(name)
    if space.groups == 1:
        return norms.rms_norm(b, y, weight, space.eps, name)
    each = space.size // space.groups
    split = g.op("Reshape", y, g.ints(0, 0, space.groups, each), name=f"{place}/Split")
    normed = norms.rms_norm(b, split, np.ones(each, np.float32), space.eps, f"{name}.groups", only_linear=False)
    joined = g.op("Reshape", normed, g.ints(0, 0, space.size), name=f"{place}/Join")
    scale = g.array(f"{name}.weight", b.channels.divided(name, weight).astype(b.activation))
    return b.channels.made(g.op("Mul", joined, scale, name=f"{place}/Mul"), name)
