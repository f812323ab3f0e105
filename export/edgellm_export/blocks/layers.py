"""Linear layers, activations and what is made of them, as functions that add nodes; differences between families are
arguments."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.blocks.build import Build, node
from edgellm_export.checkpoint.tensors import LazyTensor, RowSlice
from edgellm_export.onnx.builder import MICROSOFT

Linear = tuple[LazyTensor, FloatArray | None, str]  # a matrix, a bias, and the layer's name

ACTIVATIONS = {
    "silu": ("QuickGelu", MICROSOFT, {"alpha": 1.0}),
    "swish": ("QuickGelu", MICROSOFT, {"alpha": 1.0}),
    "gelu": ("Gelu", MICROSOFT, {}),
    "gelu_python": ("Gelu", MICROSOFT, {}),
    "gelu_new": ("FastGelu", MICROSOFT, {}),
    "gelu_accurate": ("FastGelu", MICROSOFT, {}),
    "gelu_python_tanh": ("FastGelu", MICROSOFT, {}),
    "gelu_pytorch_tanh": ("FastGelu", MICROSOFT, {}),
    "gelu_fast": ("FastGelu", MICROSOFT, {}),
    "quick_gelu": ("QuickGelu", MICROSOFT, {"alpha": 1.702}),
    "relu": ("Relu", "", {}),
}
SQUARED = {"relu2": "relu"}  # their squares


def linear(b: Build, x: ir.Value, name: str, rows: int, columns: int, *, bias: bool) -> ir.Value:
    """x @ W.T (+ bias) with the checkpoint's `name`.weight [rows, columns]."""
    weight = b.tensors.take(f"{name}.weight", (rows, columns))
    vector = b.vector(f"{name}.bias", rows) if bias else None
    return b.project(x, weight, vector, name)


def embedding(b: Build, input_ids: ir.Value, name: str, rows: int, columns: int) -> ir.Value:
    """Rows of the checkpoint's `name`.weight [rows, columns], for each id."""
    return b.scheme.embedding(b.graph, input_ids, b.tensors.take(f"{name}.weight", (rows, columns)), node(name))


def learned_positions(b: Build, positions: ir.Value | None, name: str, skipped: int = 0) -> ir.Value:
    """Rows of the checkpoint's `name`.weight, whose first `skipped` ones no token has, for each position."""
    assert positions is not None
    last = skipped + b.shape.context_length
    rows = b.tensors.take(f"{name}.weight", (last, b.shape.hidden_size)).rows(skipped, last)
    table = b.graph.array(f"{name}.weight", rows.astype(b.activation))
    return b.graph.op("Gather", table, positions, axis=0, name=f"{node(name)}/Gather")


def head(b: Build, hidden: ir.Value, embedding_name: str, head_name: str, bias_name: str | None = None) -> ir.Value:
    """Logits. A tied head reads the embedding's bytes."""
    name = embedding_name if b.shape.tied_embedding else head_name
    weight = b.tensors.take(f"{name}.weight", (b.shape.vocab_size, b.shape.hidden_size))
    vector = None if bias_name is None else b.vector(bias_name, b.shape.vocab_size)
    return b.project(hidden, weight, vector, head_name, outer=True)


def scale(b: Build, x: ir.Value, factor: float, name: str) -> ir.Value:
    return b.graph.op(
        "Mul", x, b.graph.constant(f"{name}.factor", np.array(factor, b.activation)), name=f"{node(name)}/Mul"
    )


def clip(b: Build, x: ir.Value, limit: float, name: str) -> ir.Value:
    """x, but for what is beyond -limit and limit."""
    ends = [
        b.graph.constant(f"{name}.{end}", np.array(at, b.activation)) for end, at in (("min", -limit), ("max", limit))
    ]
    return b.graph.op("Clip", x, *ends, name=f"{node(name)}/Clip")


def softcap(b: Build, x: ir.Value, cap: float, name: str) -> ir.Value:
    """cap * tanh(x / cap)."""
    small = scale(b, x, 1 / cap, f"{name}.inverse_cap")
    return scale(b, b.graph.op("Tanh", small, name=f"{node(name)}/Tanh"), cap, f"{name}.cap")


def activate(b: Build, x: ir.Value, kind: str, name: str) -> ir.Value:
    if kind in SQUARED:
        y = activate(b, x, SQUARED[kind], name)
        return b.graph.op("Mul", y, y, name=f"{node(name)}/Square")
    op_type, domain, attributes = ACTIVATIONS[kind]
    return b.graph.op(op_type, x, name=f"{node(name)}/{op_type}", domain=domain, **attributes)


def largest(b: Build, x: ir.Value, deviations: float, name: str) -> ir.Value:
    """How far each number of a token is above the mean of all and so many standard deviations; 0 for those below. Of
    numbers that are spread normally a fixed share is left. In float32, as squares may be large."""
    g, place, narrow = b.graph, node(name), b.activation != np.float32
    wide = g.op("Cast", x, to=int(ir.DataType.FLOAT), name=f"{place}/Cast") if narrow else x
    away = g.op("Sub", wide, g.op("ReduceMean", wide, g.ints(-1), name=f"{place}/Mean"), name=f"{place}/Sub")
    square = g.op("Mul", away, away, name=f"{place}/Square")
    spread = g.op("Sqrt", g.op("ReduceMean", square, g.ints(-1), name=f"{place}/Variance"), name=f"{place}/Sqrt")
    factor = g.constant(f"{name}.deviations", np.array(deviations, np.float32))
    cut = g.op("Mul", spread, factor, name=f"{place}/Cut")
    left = g.op("Relu", g.op("Sub", away, cut, name=f"{place}/Above"), name=f"{place}/Relu")
    return g.op("Cast", left, to=int(b.activation_type), name=f"{place}/Back") if narrow else left


def ungated(b: Build, x: ir.Value, up: str, down: str, size: int, kind: str, *, bias: bool) -> ir.Value:
    """down(activation(up(x))): [B, S, hidden]. size: rows of `up`."""
    hidden = b.shape.hidden_size
    x = activate(b, linear(b, x, up, size, hidden, bias=bias), kind, up.rpartition(".")[0])
    return linear(b, x, down, hidden, size, bias=bias)


def gated(
    b: Build, x: ir.Value, name: str, size: int, columns: int, kind: str, *, bias: bool, fused: bool,
    matrix: str = "gate_up_proj", deviations: float | None = None,
) -> ir.Value:  # fmt: skip
    """activation(gate_proj(x)) * up_proj(x) (Shazeer, arXiv 2002.05202): [B, S, size]. deviations: see gated_by.

    `fused`: the checkpoint has both on top of each other as `matrix`; as a layer each, no copy splits their output.
    """
    if fused:
        whole = b.tensors.take(f"{name}.{matrix}.weight", (2 * size, columns))
        matrices: list[LazyTensor] = [
            RowSlice(f"{name}.{part}.weight", whole, i * size, (i + 1) * size)
            for i, part in enumerate(("gate_proj", "up_proj"))
        ]
    else:
        matrices = [b.tensors.take(f"{name}.{part}.weight", (size, columns)) for part in ("gate_proj", "up_proj")]
    gate_bias, up_bias = (b.vector(f"{name}.{part}.bias", size) if bias else None for part in ("gate_proj", "up_proj"))
    gate, up = (matrices[0], gate_bias, f"{name}.gate_proj"), (matrices[1], up_bias, f"{name}.up_proj")
    return gated_by(b, x, gate, up, name, kind, deviations=deviations)


def gated_by(
    b: Build, x: ir.Value, gate: Linear, up: Linear, name: str, kind: str, *, deviations: float | None = None
) -> ir.Value:
    """activation(gate(x)) * up(x). `name`: of the place. deviations: see largest."""
    made, (matrix, bias, up_name) = f"{name}.gated", up
    opened = b.project(x, *gate)
    if deviations is not None:
        opened = largest(b, opened, deviations, f"{name}.largest")
    opened = activate(b, opened, kind, f"{name}.act")
    vector = None if bias is None else b.channels.divided(made, bias)
    raised = b.project(x, b.channels.divided_rows(made, matrix), vector, up_name)
    return b.channels.made(b.graph.op("Mul", opened, raised, name=f"{node(name)}/Mul"), made)
