"""Mixtures of experts: each token goes through a few of many MLPs, those that a router chooses for it.

The graph has every expert as layers of its own. Tokens are sorted by expert, split, and each expert multiplies its own,
which may be none: then its operators return at once, and none of its weights is read. So what a package says of
matrices, and what calibration does with them, holds for experts too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgellm_export.blocks.build import Build, Material, built, node
from edgellm_export.blocks.layers import activate
from edgellm_export.blocks.ranking import Ranking, ranked
from edgellm_export.onnx.builder import Apart, BuiltGraph

NUMBERED = re.compile(r"\.experts\.\d+\.")


@dataclass(frozen=True)
class Experts:
    """`count` MLPs of `size` channels, of which each token goes through `chosen`. `normalized`: the weights of those
    sum up to 1. `router`, `gate`, `up`, `down`: names of matrices, which have a `bias` or none. `limit`: of values in
    front of the gate; such experts compute (up + 1) * gate * sigmoid(1.702 gate) whatever their `act`. `nearness`: the
    weight of a chosen expert is its share among those whose score is no further from its own than that, relative to
    the larger of the two. `ranking`: how they are chosen, where not by their scores alone."""

    count: int
    chosen: int
    size: int
    normalized: bool
    act: str
    router: str = "gate"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    bias: bool = False
    limit: float | None = None
    nearness: float | None = None
    ranking: Ranking | None = None

    @property
    def share(self) -> float:
        """Of all tokens, that go through one of them."""
        return self.chosen / self.count


@dataclass(frozen=True)
class Routed:
    """`tokens`: [1, T * chosen, hidden], sorted by expert. `sizes`: [experts] int64, how many each gets. `order`: [T *
    chosen] int64, the place that each had before, by token. `weights`: [1, T, chosen]."""

    tokens: ir.Value
    sizes: ir.Value
    order: ir.Value
    weights: ir.Value


def mixture(b: Build, x: ir.Value, name: str, experts: Experts) -> ir.Value:
    """For each token of x [B, S, hidden], the weighted sum of what its experts make of it: [B, S, hidden]."""
    routed = _routed(b, x, name, experts)
    made = _made(b, routed, name, experts) if b.apart is None else _made_apart(b, routed, name, experts)
    return _summed(b, made, routed, x, name, experts.chosen)


def _made(b: Build, routed: Routed, name: str, experts: Experts) -> ir.Value:
    """What the experts make of their tokens, in the order of `routed.tokens`."""
    g, place = b.graph, f"{node(name)}/experts"
    parts = g.ops("Split", routed.tokens, routed.sizes, name=f"{place}/Split", outputs=experts.count, axis=1)
    made = [_expert(b, b.channels.same(part, routed.tokens), _name(name, i), experts) for i, part in enumerate(parts)]
    return g.op("Concat", *made, name=f"{place}/Concat", axis=1)


def _made_apart(b: Build, routed: Routed, name: str, experts: Experts) -> ir.Value:
    """The same as an input of the graph, which others make."""
    assert b.apart is not None
    tokens, sizes, made = (f"{name}.{each}" for each in ("tokens", "sizes", "made"))
    shape, origin = b.shape, b.channels.origin_of(routed.tokens)

    def build(material: Material, index: int, observe: bool) -> BuiltGraph:
        one = material.build(shape, name)
        x = one.graph.input(tokens, one.activation_type, [1, "count", shape.hidden_size])
        if origin is not None:
            one.channels.made(x, origin)
        y = _expert(one, x, _name(name, index), experts)
        read = {each.x for each in one.channels.projections} - {x} if observe else set()
        outputs = [(y, made), *((each, str(each.name)) for each in read)]
        return built(one, [(value, named, one.activation_type, [1, "count", None]) for value, named in outputs])

    b.outputs.extend(
        [
            (routed.tokens, tokens, b.activation_type, [1, None, shape.hidden_size]),
            (routed.sizes, sizes, ir.DataType.INT64, [experts.count]),
        ]
    )
    b.apart.append(Apart(experts.count, experts.chosen, tokens, sizes, made, build))
    return b.graph.input(made, b.activation_type, [1, "sorted", shape.hidden_size])


def _name(mixture: str, index: int) -> str:
    return f"{mixture}.experts.{index}"


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
    return Routed(b.channels.same(sorted_, x), sizes, order, weights)


def _choice(b: Build, tokens: ir.Value, name: str, place: str, experts: Experts) -> tuple[ir.Value, ir.Value]:
    """Of each token's experts the weights and the numbers, each [1, T, chosen]. A softmax over those that are chosen is
    the one over all, divided by its sum."""
    g = b.graph
    weight = b.tensors.take(f"{name}.weight", (experts.count, b.shape.hidden_size))
    bias = b.vector(f"{name}.bias", experts.count) if experts.bias else None
    scores = b.project(tokens, weight, bias, name, outer=True)
    if experts.nearness is not None:
        return _near_best(b, scores, place, experts, experts.nearness)
    if (ranking := experts.ranking) is not None:
        return ranked(b, scores, name, place, ranking, experts.count, experts.chosen, normalized=experts.normalized)
    if not experts.normalized:
        scores = g.op("Softmax", scores, name=f"{place}/Softmax", axis=-1)
    values, choice = g.ops("TopK", scores, g.ints(experts.chosen), name=f"{place}/TopK", outputs=2, axis=-1)
    return g.op("Softmax", values, name=f"{place}/Softmax", axis=-1) if experts.normalized else values, choice


def _near_best(b: Build, scores: ir.Value, place: str, experts: Experts, nearness: float) -> tuple[ir.Value, ir.Value]:
    """The same for the sparse mixer of Liu et al. (arXiv 2409.12136), one expert after the other; those that are chosen
    have no share in later ones' sums. What transformers calls relative is to the larger of |score| and the best."""
    g = b.graph
    low, limit = (
        g.constant(f"/constants/router/{name}", np.array(number, b.activation))
        for name, number in (("none", -np.inf), (f"{nearness}", nearness))
    )
    sizes, left, weights, choices = g.op("Abs", scores, name=f"{place}/Abs"), scores, [], []
    numbers = g.constant(f"/constants/router/{experts.count}", np.arange(experts.count, dtype=np.int64))
    for i in range(experts.chosen):
        at = f"{place}/{i}"
        best, choice = g.ops("TopK", left, g.ints(1), name=f"{at}/TopK", outputs=2, axis=-1)
        gap = g.op("Sub", best, scores, name=f"{at}/Sub")
        gap = g.op("Div", gap, g.op("Max", sizes, best, name=f"{at}/Max"), name=f"{at}/Div")
        far = g.op("Greater", gap, limit, name=f"{at}/Greater")
        near = g.op("Softmax", g.op("Where", far, low, left, name=f"{at}/Where"), name=f"{at}/Softmax", axis=-1)
        share, _ = g.ops("TopK", near, g.ints(1), name=f"{at}/Share", outputs=2, axis=-1)
        taken = g.op("Equal", numbers, choice, name=f"{at}/Equal")
        left = g.op("Where", taken, low, left, name=f"{at}/Left")
        weights.append(share)
        choices.append(choice)
    joined = (g.op("Concat", *each, name=f"{place}/{n}", axis=-1) for n, each in (("W", weights), ("C", choices)))
    first, second = joined
    return first, second


def _expert(b: Build, x: ir.Value, name: str, experts: Experts) -> ir.Value:
    hidden, size = b.shape.hidden_size, experts.size
    # What a clamped gate gives is no multiple of what up gives.
    made = None if experts.limit is not None else f"{name}.gated"
    gate = _linear(b, x, f"{name}.{experts.gate}", (size, hidden), experts)
    up = _linear(b, x, f"{name}.{experts.up}", (size, hidden), experts, made)
    if made is None:
        y = _clamped(b, gate, up, name, experts)
    else:
        y = b.graph.op("Mul", activate(b, gate, experts.act, f"{name}.act"), up, name=f"{node(name)}/Mul")
        b.channels.made(y, made)
    return _linear(b, y, f"{name}.{experts.down}", (hidden, size), experts)


def _linear(
    b: Build, x: ir.Value, name: str, shape: tuple[int, int], experts: Experts, made: str | None = None
) -> ir.Value:
    """A layer of an expert; `made`: the value that its output is a factor of, whose channels may be scaled."""
    weight = b.tensors.take(f"{name}.weight", shape)
    bias = b.vector(f"{name}.bias", shape[0]) if experts.bias else None
    if made is not None:
        weight = b.channels.divided_rows(made, weight)
        bias = None if bias is None else b.channels.divided(made, bias)
    return b.project(x, weight, bias, name, share=experts.share)


def _clamped(b: Build, gate: ir.Value, up: ir.Value, name: str, experts: Experts) -> ir.Value:
    g, place = b.graph, node(name)
    high, low, one = (
        g.constant(f"/constants/clamp/{number}", np.array(number, b.activation))
        for number in (experts.limit, -(experts.limit or 0.0), 1.0)
    )
    gate = activate(b, g.op("Min", gate, high, name=f"{place}/Min"), "quick_gelu", f"{name}.act")
    up = g.op("Add", g.op("Clip", up, low, high, name=f"{place}/Clip"), one, name=f"{place}/Add")
    return g.op("Mul", up, gate, name=f"{place}/Mul")


def _summed(b: Build, made: ir.Value, routed: Routed, x: ir.Value, name: str, chosen: int) -> ir.Value:
    """What experts made, by token again, times the weights. [B, S, hidden], as x."""
    g, place, hidden = b.graph, f"{node(name)}/experts", b.shape.hidden_size
    count = g.op("Shape", routed.order, name=f"{place}/Count")
    _, places = g.ops("TopK", routed.order, count, name=f"{place}/Places", outputs=2, axis=0, largest=0)
    back = g.op("Gather", made, places, name=f"{place}/Gather", axis=1)
    by_token = g.op("Reshape", back, g.ints(-1, chosen, hidden), name=f"{place}/ByToken")
    weights = g.op("Reshape", routed.weights, g.ints(-1, 1, chosen), name=f"{place}/Weights")
    total = g.op("MatMul", weights, by_token, name=f"{place}/MatMul")  # [T, 1, hidden]
    shape = g.op("Shape", x, name=f"{place}/Shape")
    return g.op("Reshape", total, shape, name=f"{place}/Reshape")


def of_all_experts(name: str) -> str:
    """The name that a value or matrix of an expert has in common with those of the layer's others."""
    return NUMBERED.sub(".experts.*.", name)
