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


def head(b: Build, hidden: ir.Value, embedding_name: str, head_name: str) -> ir.Value:
    """Logits. A tied head reads the embedding's bytes."""
    name = embedding_name if b.shape.tied_embedding else head_name
    weight = b.tensors.take(f"{name}.weight", (b.shape.vocab_size, b.shape.hidden_size))
    return b.project(hidden, weight, None, head_name, outer=True)


def scale(b: Build, x: ir.Value, factor: float, name: str) -> ir.Value:
    return b.graph.op(
        "Mul", x, b.graph.constant(f"{name}.factor", np.array(factor, b.activation)), name=f"{node(name)}/Mul"
    )


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


def gated(b: Build, x: ir.Value, name: str, size: int, columns: int, kind: str, *, bias: bool, fused: bool) -> ir.Value:
    """activation(gate_proj(x)) * up_proj(x) (Shazeer, arXiv 2002.05202): [B, S, size].

    `fused`: the checkpoint has both on top of each other as gate_up_proj; as a layer each, no copy splits their output.
    """
    if fused:
        whole = b.tensors.take(f"{name}.gate_up_proj.weight", (2 * size, columns))
        matrices: list[LazyTensor] = [
            RowSlice(f"{name}.{part}.weight", whole, i * size, (i + 1) * size)
            for i, part in enumerate(("gate_proj", "up_proj"))
        ]
    else:
        matrices = [b.tensors.take(f"{name}.{part}.weight", (size, columns)) for part in ("gate_proj", "up_proj")]
    gate_bias, up_bias = (b.vector(f"{name}.{part}.bias", size) if bias else None for part in ("gate_proj", "up_proj"))
    gate, up = (matrices[0], gate_bias, f"{name}.gate_proj"), (matrices[1], up_bias, f"{name}.up_proj")
    return gated_by(b, x, gate, up, name, kind)


def gated_by(b: Build, x: ir.Value, gate: Linear, up: Linear, name: str, kind: str) -> ir.Value:
    """activation(gate(x)) * up(x). `name`: of the place."""
    made, (matrix, bias, up_name) = f"{name}.gated", up
    opened = activate(b, b.project(x, *gate), kind, f"{name}.act")
    vector = None if bias is None else b.channels.divided(made, bias)
    raised = b.project(x, b.channels.divided_rows(made, matrix), vector, up_name)
    return b.channels.made(b.graph.op("Mul", opened, raised, name=f"{node(name)}/Mul"), made)
