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
    g, run, present = b.graph, _run(b, read, step, name, space), None
    y = run.of_each_other(_earlier(b, read))
    if cache.ssm is not None:
        known = _known(b, read, cache.ssm, batch, run.place)
        y, present = run.op("Add", "y/Add", y, run.of(known)), run.after(known)
    skip = b.vector(f"{name}.D", space.layout.num_heads).reshape(space.groups, -1, 1, 1)
    y = run.op("Add", "skip/Add", y, run.op("Mul", "skip/Mul", run.x, g.array(f"{name}.D", skip.astype(np.float32))))
    y = run.op("Transpose", "y/Transpose", y, perm=[0, 4, 1, 2, 3])
    return run.op("Reshape", "y/Reshape", y, g.ints(0, 0, space.size)), present


@dataclass(frozen=True)
class _Run:
    """The S tokens of a run, in G groups of H heads of P channels with N numbers for each.

    x: [B, G, H, P, S]. added: the same times dt. into: [B, G, S, N], what it is multiplied by to be added to the state.
    out: [B, G, N, S], what the state is multiplied by. decayed: sums of decays until each token, see `_sums`,
    [B, G, H, 1, S] each.
    """

    b: Build
    place: str
    space: StateSpace
    x: ir.Value
    added: ir.Value
    into: ir.Value
    out: ir.Value
    decayed: Sequence[ir.Value]

    def op(self, kind: str, label: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        return self.b.graph.op(kind, *inputs, name=f"{self.place}/{label}", **attributes)

    def of_each_other(self, earlier: ir.Value) -> ir.Value:
        """What each token gives of those of the run, [B, G, H, P, S]. earlier: [S from, S to]."""
        g = self.b.graph
        start = [
            self.op("Transpose", f"{i}/Transpose", each, perm=[0, 1, 2, 4, 3]) for i, each in enumerate(self.decayed)
        ]
        seen = self.op("MatMul", "seen/MatMul", self.into, self.out)  # [B, G, S from, S to]
        seen = self.op("Unsqueeze", "seen/Unsqueeze", seen, g.ints(2))
        shares = self.op("Mul", "shares/Mul", seen, self._left("between", self.decayed, start))
        # From later tokens nothing comes; what grew on the way to them may be infinite.
        shares = self.op("Where", "shares/Where", earlier, shares, _zero(self.b))
        return self.op("MatMul", "y/MatMul", self.added, shares)

    def of(self, known: ir.Value) -> ir.Value:
        """What each token gives of the state before the run, [B, G, H, P, S]. known: [B, heads, P, N]."""
        layout = self.space.layout
        given = self.op("MatMul", "past/MatMul", self._grouped("known", known), self.out)
        split = self.b.graph.ints(0, 0, self._heads, layout.head_dim, -1)
        given = self.op("Reshape", "past/Reshape", given, split)
        return self.op("Mul", "past/Mul", given, self._left("past", self.decayed))

    def after(self, known: ir.Value) -> ir.Value:
        """The state behind the run, [B, heads, P, N]."""
        g, layout = self.b.graph, self.space.layout
        total = [
            self.op("Slice", f"total/{i}/Slice", each, g.ints(-1), g.ints(END), g.ints(4))
            for i, each in enumerate(self.decayed)
        ]
        kept = self.op("Mul", "kept/Mul", self.added, self._left("left", total, self.decayed))
        kept = self.op("Reshape", "kept/Reshape", kept, g.ints(0, 0, self._heads * layout.head_dim, -1))
        new = self.op("MatMul", "new/MatMul", kept, self.into)
        new = self.op("Reshape", "new/Reshape", new, g.ints(0, layout.num_heads, layout.head_dim, layout.state_size))
        stays = self.op("Reshape", "stays/Reshape", self._left("stays", total), g.ints(0, layout.num_heads, 1, 1))
        return self.op("Add", "present/Add", self.op("Mul", "old/Mul", known, stays), new)

    @property
    def _heads(self) -> int:
        """Of a group."""
        return self.space.layout.num_heads // self.space.groups

    def _grouped(self, label: str, state: ir.Value) -> ir.Value:
        """[B, heads, P, N] as [B, G, H * P, N]."""
        layout = self.space.layout
        shape = (0, self.space.groups, self._heads * layout.head_dim, layout.state_size)
        return self.op("Reshape", f"{label}/Reshape", state, self.b.graph.ints(*shape))

    def _left(self, label: str, until: Sequence[ir.Value], start: Sequence[ir.Value] = ()) -> ir.Value:
        """What is left at one place of what there was at another, or before the run."""
        parts = list(until)
        if start:
            pairs = zip(until, start, strict=True)
            parts = [self.op("Sub", f"{label}/{i}/Sub", *pair) for i, pair in enumerate(pairs)]
        return self.op("Exp", f"{label}/Exp", self.op("Add", f"{label}/Add", *parts))


def _run(b: Build, read: ir.Value, step: ir.Value, name: str, space: StateSpace) -> _Run:
    g, place, layout, groups = b.graph, f"{node(name)}/scan", space.layout, space.groups
    heads, state = layout.num_heads // groups, groups * layout.state_size

    def numbers(label: str, values: FloatArray) -> ir.Value:
        return g.array(f"{name}.{label}", values.astype(np.float32))

    def apart(label: str, value: ir.Value, *shape: int) -> ir.Value:
        """[B, S, ...] to [B, *shape, S]."""
        split = g.op("Reshape", value, g.ints(0, 0, *shape), name=f"{place}/{label}/Reshape")
        return g.op("Transpose", split, perm=[0, *range(2, 2 + len(shape)), 1], name=f"{place}/{label}/Transpose")

    parts = g.ops("Split", read, g.ints(space.size, state, state), name=f"{place}/Split", outputs=3, axis=-1)
    x = apart("x", parts[0], groups, heads, layout.head_dim)
    into, out = (apart(label, part, groups, layout.state_size) for label, part in zip("BC", parts[1:], strict=True))
    into = g.op("Transpose", into, perm=[0, 1, 3, 2], name=f"{place}/B/Rows")
    biased = g.op(
        "Add", step, numbers("dt_bias", b.vector(f"{name}.dt_bias", layout.num_heads)), name=f"{place}/dt/Add"
    )
    dt = apart("dt", g.op("Softplus", biased, name=f"{place}/dt/Softplus"), groups, heads, 1)
    rates = -np.exp(b.vector(f"{name}.A_log", layout.num_heads)).reshape(groups, heads, 1, 1)
    decay = g.op("Mul", dt, numbers("A", rates), name=f"{place}/decay/Mul")
    added = g.op("Mul", x, dt, name=f"{place}/added/Mul")
    return _Run(b, place, space, x, added, into, out, _sums(b, decay, f"{place}/decay"))


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
    return g.op("Where", known[0], _zero(b), past, name=f"{place}/known/Where")


def _zero(b: Build) -> ir.Value:
    return b.graph.constant("/scan/zero", np.zeros(1, np.float32))


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
