"""Mixtures of experts: each token goes through a few of many MLPs, those that a router chooses for it.

The graph has every expert as layers of its own. Tokens are sorted by expert, split, and each expert multiplies its own,
which may be none: then its operators return at once, and none of its weights is read. So what a package says of
matrices, and what calibration does with them, holds for experts too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgellm_export.blocks.build import Build, node
from edgellm_export.blocks.layers import activate

EXPERT = ".experts.{}"
NUMBERED = re.compile(r"\.experts\.\d+\.")


@dataclass(frozen=True)
class Experts:
    """`count` MLPs of `size` channels, of which each token goes through `chosen`. `normalized`: the weights of those
    sum up to 1. `router`, `gate`, `up`, `down`: names of matrices."""

    count: int
    chosen: int
    size: int
    normalized: bool
    act: str
    router: str = "gate"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"


@dataclass(frozen=True)
class Routed:
    """Tokens [1, T, hidden] sorted by expert. `parts`: for each expert, its tokens [1, n, hidden]. `order`: [T *
    chosen] int64, the place that each had before, by token. `weights`: [1, T, chosen]."""

    parts: Sequence[ir.Value]
    order: ir.Value
    weights: ir.Value


def mixture(b: Build, x: ir.Value, name: str, experts: Experts) -> ir.Value:
    """For each token of x [B, S, hidden], the weighted sum of what its experts make of it: [B, S, hidden]."""
    routed = _routed(b, x, name, experts)
    made = [_expert(b, part, f"{name}{EXPERT.format(i)}", experts) for i, part in enumerate(routed.parts)]
    return _summed(b, made, routed, x, name, experts.chosen)


def _routed(b: Build, x: ir.Value, name: str, experts: Experts) -> Routed:
    g, place, hidden = b.graph, f"{node(name)}/router", b.shape.hidden_size
    tokens = b.channels.same(g.op("Reshape", x, g.ints(1, -1, hidden), name=f"{place}/Tokens"), x)
    weights, choice = _choice(b, tokens, f"{name}.{experts.router}", place, experts)
    chosen = g.op("Reshape", choice, g.ints(-1), name=f"{place}/Flat")
    count = g.op("Shape", chosen, name=f"{place}/Count")
    # Equal numbers keep their order, so this sorts tokens by expert, and those of an expert as they stand in the text.
    _, order = g.ops("TopK", chosen, count, name=f"{place}/Order", outputs=2, axis=0, largest=0)
    rows = g.op("Div", order, g.ints(experts.chosen), name=f"{place}/Rows")
    sorted_ = g.op("Gather", tokens, rows, name=f"{place}/Gather", axis=1)
    numbers = g.constant(f"/constants/experts/{experts.count}", np.arange(experts.count, dtype=np.int64)[:, None])
    equal = g.op("Equal", chosen, numbers, name=f"{place}/Equal")  # [experts, T * chosen]
    whole = g.op("Cast", equal, name=f"{place}/Cast", to=int(ir.DataType.INT64))
    sizes = g.op("ReduceSum", whole, g.ints(1), name=f"{place}/Sizes", keepdims=0)
    parts = g.ops("Split", sorted_, sizes, name=f"{place}/Split", outputs=experts.count, axis=1)
    return Routed([b.channels.same(part, x) for part in parts], order, weights)


def _choice(b: Build, tokens: ir.Value, name: str, place: str, experts: Experts) -> tuple[ir.Value, ir.Value]:
    """Of each token's experts the weights and the numbers, each [1, T, chosen]. A softmax over those that are chosen is
    the one over all, divided by its sum."""
    g = b.graph
    scores = b.project(
        tokens, b.tensors.take(f"{name}.weight", (experts.count, b.shape.hidden_size)), None, name, outer=True
    )
    if not experts.normalized:
        scores = g.op("Softmax", scores, name=f"{place}/Softmax", axis=-1)
    values, choice = g.ops("TopK", scores, g.ints(experts.chosen), name=f"{place}/TopK", outputs=2, axis=-1)
    return g.op("Softmax", values, name=f"{place}/Softmax", axis=-1) if experts.normalized else values, choice


def _expert(b: Build, x: ir.Value, name: str, experts: Experts) -> ir.Value:
    made, hidden, size = f"{name}.gated", b.shape.hidden_size, experts.size
    gate, up = (b.tensors.take(f"{name}.{part}.weight", (size, hidden)) for part in (experts.gate, experts.up))
    gate_out = b.project(x, gate, None, f"{name}.{experts.gate}")
    up_out = b.project(x, b.channels.divided_rows(made, up), None, f"{name}.{experts.up}")
    y = b.graph.op("Mul", activate(b, gate_out, experts.act, f"{name}.act"), up_out, name=f"{node(name)}/Mul")
    down = b.tensors.take(f"{name}.{experts.down}.weight", (hidden, size))
    return b.project(b.channels.made(y, made), down, None, f"{name}.{experts.down}")


def _summed(
    b: Build, made: Sequence[ir.Value], routed: Routed, x: ir.Value, name: str, chosen: int
) -> ir.Value:  # fmt: skip
    """What experts made, by token again, times the weights. [B, S, hidden], as x."""
    g, place, hidden = b.graph, f"{node(name)}/experts", b.shape.hidden_size
    whole = g.op("Concat", *made, name=f"{place}/Concat", axis=1)
    count = g.op("Shape", routed.order, name=f"{place}/Count")
    _, places = g.ops("TopK", routed.order, count, name=f"{place}/Places", outputs=2, axis=0, largest=0)
    back = g.op("Gather", whole, places, name=f"{place}/Gather", axis=1)
    by_token = g.op("Reshape", back, g.ints(-1, chosen, hidden), name=f"{place}/ByToken")
    weights = g.op("Reshape", routed.weights, g.ints(-1, 1, chosen), name=f"{place}/Weights")
    total = g.op("MatMul", weights, by_token, name=f"{place}/MatMul")  # [T, 1, hidden]
    shape = g.op("Shape", x, name=f"{place}/Shape")
    return g.op("Reshape", total, shape, name=f"{place}/Reshape")


def of_all_experts(name: str) -> str:
    """The name that a value or matrix of an expert has in common with those of the layer's others."""
    return NUMBERED.sub(".experts.*.", name)
