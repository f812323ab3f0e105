"""Alternating updates (AltUp, arXiv 2301.13310): a token has several streams, of which a layer computes one. The others
are predicted from all of them, and corrected by what the layer made of its own.

Streams lie side by side, [B, S, inputs * hidden_size], and here below each other, [B, S, inputs, hidden_size]. All
products are of one token: its numbers do not depend on its neighbours'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgellm_export.blocks.build import Build, node
from edgellm_export.blocks.layers import linear, scale
from edgellm_export.blocks.norms import rms_norm

LEAST_SQUARE = 1e-5  # of a stream's mean square, where one is brought to the size of another


@dataclass(frozen=True)
class AltUp:
    """`inputs`: how many streams. `active`: the one that layers compute."""

    inputs: int
    active: int
    eps: float


def expand(b: Build, x: ir.Value, altup: AltUp, name: str) -> ir.Value:
    """The streams of embeddings x [B, S, hidden_size]: themselves, and products with them, of the same size."""
    size, hidden = _size(b, x, name), b.shape.hidden_size
    others = [linear(b, x, f"{name}.{i}", hidden, hidden, bias=False) for i in range(altup.inputs - 1)]
    streams = [x, *(_of_size(b, y, size, f"{name}.{i}") for i, y in enumerate(others))]
    return b.graph.op("Concat", *streams, axis=-1, name=f"{node(name)}/Concat")


def contract(b: Build, streams: ir.Value, altup: AltUp, name: str) -> ir.Value:
    """What the streams, side by side, are in the middle, each made by a matrix and of the size of the first."""
    g, place, hidden = b.graph, node(name), b.shape.hidden_size
    first, *rest = g.ops(
        "Split", streams, axis=-1, num_outputs=altup.inputs, name=f"{place}/Split", outputs=altup.inputs
    )
    size = _size(b, first, name)
    made = [linear(b, x, f"{name}.{i}", hidden, hidden, bias=False) for i, x in enumerate(rest)]
    others = [_of_size(b, y, size, f"{name}.{i}") for i, y in enumerate(made)]
    return scale(b, g.op("Sum", first, *others, name=f"{place}/Sum"), 1 / altup.inputs, f"{name}.mean")


def apart(b: Build, streams: ir.Value, altup: AltUp, name: str) -> ir.Value:
    """Below each other."""
    g = b.graph
    return g.op("Reshape", streams, g.ints(0, 0, altup.inputs, b.shape.hidden_size), name=f"{node(name)}/Apart")


def beside(b: Build, streams: ir.Value, altup: AltUp, name: str) -> ir.Value:
    """Side by side again."""
    g = b.graph
    return g.op("Reshape", streams, g.ints(0, 0, altup.inputs * b.shape.hidden_size), name=f"{node(name)}/Beside")


def active(b: Build, streams: ir.Value, altup: AltUp, name: str) -> ir.Value:
    """The one that layers compute: [B, S, hidden_size]."""
    return b.graph.op("Gather", streams, b.graph.scalar(altup.active), axis=2, name=f"{node(name)}/Active")


def predict(b: Build, streams: ir.Value, altup: AltUp, name: str) -> ir.Value:
    """The streams before a layer, and what a product with all of them adds to each."""
    g, n, place = b.graph, altup.inputs, f"{node(name)}/predict"
    routed = _router(b, active(b, streams, altup, f"{name}.predict"), altup, name, "predict")
    matrix = g.op("MatMul", _small(b, f"{name}.prediction_coefs", n * n, n), routed, name=f"{place}/Coefficients")
    square = g.op("Reshape", matrix, g.ints(0, 0, n, n), name=f"{place}/Square")
    return g.op("Add", g.op("MatMul", square, streams, name=f"{place}/MatMul"), streams, name=f"{place}/Add")


def correct(b: Build, predicted: ir.Value, was: ir.Value, made: ir.Value, altup: AltUp, name: str) -> ir.Value:
    """The streams behind a layer that made `made` of the active one `was`, [B, S, hidden_size] each: what is new in it
    is added to each, as often as the router says."""
    g, n, place = b.graph, altup.inputs, f"{node(name)}/correct"
    routed = _router(b, made, altup, name, "correct")
    shares = g.op("MatMul", _small(b, f"{name}.correction_coefs", n, n), routed, name=f"{place}/Coefficients")
    shares = g.op("Add", shares, _number(b, 1.0, f"{name}.one"), name=f"{place}/One")
    new = g.op("Sub", made, was, name=f"{place}/Sub")
    return add_to_each(b, predicted, new, shares, f"{name}.correct")


def add_to_each(b: Build, streams: ir.Value, x: ir.Value, shares: ir.Value, name: str) -> ir.Value:
    """x [B, S, hidden_size] times shares [.., inputs, 1], added to the streams."""
    g, place = b.graph, node(name)
    below = g.op("Unsqueeze", x, g.ints(2), name=f"{place}/Unsqueeze")
    return g.op("Add", g.op("Mul", below, shares, name=f"{place}/Mul"), streams, name=f"{place}/Add")


def all_but_first(b: Build, altup: AltUp, name: str) -> ir.Value:
    """Shares [inputs, 1]."""
    return _array(b, f"{name}.but_first", [[float(i > 0)] for i in range(altup.inputs)])


def _router(b: Build, x: ir.Value, altup: AltUp, name: str, step: str) -> ir.Value:
    """A number from -1 to 1 for each stream: [B, S, inputs, 1]."""
    g, hidden, place = b.graph, b.shape.hidden_size, f"{node(name)}/{step}/router"
    weight = b.vector(f"{name}.router_norm.weight", hidden) / np.float32(hidden)
    normed = rms_norm(b, x, weight, altup.eps, f"{name}.{step}.router_norm", only_linear=False)
    column = g.op("Unsqueeze", normed, g.ints(3), name=f"{place}/Unsqueeze")
    routed = g.op("MatMul", _small(b, f"{name}.modality_router", altup.inputs, hidden), column, name=f"{place}/MatMul")
    return g.op("Tanh", routed, name=f"{place}/Tanh")


def _small(b: Build, name: str, rows: int, columns: int) -> ir.Value:
    """A matrix of a few rows, which is not rounded."""
    known = b.graph.lookup(name)
    if known is None:
        matrix = b.tensors.take(f"{name}.weight", (rows, columns)).rows(0, rows)
        known = (b.graph.array(f"{name}.weight", matrix.astype(b.activation)),)
        b.graph.remember(name, known)
    return known[0]


def _size(b: Build, x: ir.Value, name: str, least: float | None = None) -> ir.Value:
    """The root of the mean square of each token, [B, S, 1]; in float32, as squares may be large."""
    g, place = b.graph, f"{node(name)}/size"
    wide = x if b.activation == np.float32 else g.op("Cast", x, to=int(ir.DataType.FLOAT), name=f"{place}/Cast")
    mean = g.op("ReduceMean", g.op("Mul", wide, wide, name=f"{place}/Square"), g.ints(-1), name=f"{place}/Mean")
    if least is not None:
        mean = g.op("Max", mean, g.constant(f"{name}.least", np.array(least, np.float32)), name=f"{place}/Max")
    root = g.op("Sqrt", mean, name=f"{place}/Sqrt")
    return root if b.activation == np.float32 else g.op("Cast", root, to=int(b.activation_type), name=f"{place}/Back")


def _of_size(b: Build, x: ir.Value, size: ir.Value, name: str) -> ir.Value:
    """x, as large as `size` says."""
    g, place = b.graph, f"{node(name)}/of_size"
    wide = g.op("Mul", x, size, name=f"{place}/Mul")
    return g.op("Div", wide, _size(b, x, name, LEAST_SQUARE), name=f"{place}/Div")


def _number(b: Build, value: float, name: str) -> ir.Value:
    return b.graph.constant(name, np.array(value, b.activation))


def _array(b: Build, name: str, rows: Sequence[Sequence[float]]) -> ir.Value:
    return b.graph.constant(name, np.array(rows, b.activation))
