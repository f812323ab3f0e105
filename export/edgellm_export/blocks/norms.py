"""Norms, and the additions that go before them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.blocks.build import Build, Stream, node
from edgellm_export.onnx.builder import MICROSOFT

BOTH = ("weight", "bias")


def add(b: Build, stream: Stream, name: str) -> ir.Value:
    """The stream as one value."""
    if stream.delta is None:
        return stream.residual
    return b.graph.op("Add", stream.residual, stream.delta, name=f"{node(name)}/Add")


def rms_norm(b: Build, x: ir.Value, weight: FloatArray, eps: float, name: str, *, only_linear: bool = True) -> ir.Value:
    """x / rms(x) * weight over the last axis (Zhang and Sennrich, arXiv 1910.07467). `only_linear`: see layer_norm."""
    scale = b.graph.array(f"{name}.weight", b.channels.divided(name, weight).astype(b.activation))
    y = b.graph.op(
        "SimplifiedLayerNormalization", x, scale, name=f"{node(name)}/RMSNorm", axis=-1, epsilon=eps, stash_type=1
    )
    return b.channels.made(y, name) if only_linear else y


def unscaled(b: Build, x: ir.Value) -> ir.Value:
    """A norm's output with its channels as large as they were, for readers that are not linear layers."""
    found = b.channels.scale_of(x)
    if found is None:
        return x
    origin, scale = found
    factor = b.graph.array(f"{origin}.scale", scale.astype(b.activation))
    return b.graph.op("Mul", x, factor, name=f"{node(origin)}/Unscale")


def add_rms_norm(b: Build, stream: Stream, weight: FloatArray, eps: float, name: str) -> tuple[ir.Value, Stream]:
    """Normed sum of the stream, and the stream with its delta added.

    In one operator for CUDA. On the CPU that one takes nearly twice the time of the two for a prompt, and as much for a
    token.
    """
    if stream.delta is None:
        return rms_norm(b, stream.residual, weight, eps, name), stream
    if b.activation == np.float32:
        total = b.graph.op("Add", stream.residual, stream.delta, name=f"{node(name)}/Add")
        return rms_norm(b, total, weight, eps, name), Stream(total)
    scale = b.graph.array(f"{name}.weight", b.channels.divided(name, weight).astype(b.activation))
    normed, _, _, total = b.graph.ops(
        "SkipSimplifiedLayerNormalization", stream.residual, stream.delta, scale,
        name=f"{node(name)}/SkipRMSNorm", outputs=4, domain=MICROSOFT, epsilon=eps,
    )  # fmt: skip
    return b.channels.made(normed, name), Stream(total)


def add_rms_norm_of(b: Build, stream: Stream, name: str, eps: float) -> tuple[ir.Value, Stream]:
    """add_rms_norm with the checkpoint's `name`.weight."""
    return add_rms_norm(b, stream, b.vector(f"{name}.weight", b.shape.hidden_size), eps, name)


def layer_norm(
    b: Build, x: ir.Value, name: str, size: int, eps: float, *,
    has: Sequence[str] = BOTH, shift: float = 0.0, only_linear: bool = True,
) -> ir.Value:  # fmt: skip
    """LayerNormalization with the checkpoint's `name`.weight + `shift` and .bias, as far as it `has` them.
    `only_linear`: nothing but linear layers reads it, so that its channels may be scaled.

    The core operator, not the Skip variant: that one takes the variance as E[x^2] - mean^2, which cancels on the large
    residuals of such models.
    """
    vectors = {part: b.vector(f"{name}.{part}", size) for part in has} or {"weight": np.ones(size, np.float32)}
    vectors["weight"] = vectors["weight"] + np.float32(shift)
    parts = [
        b.graph.array(f"{name}.{part}", b.channels.divided(name, vector).astype(b.activation))
        for part, vector in vectors.items()
    ]
    y = b.graph.op("LayerNormalization", x, *parts, name=f"{node(name)}/LayerNorm", axis=-1, epsilon=eps)
    return b.channels.made(y, name) if only_linear else y


def per_head_layer_norm(
    b: Build, x: ir.Value, heads: int, head_dim: int, weight: FloatArray, eps: float, name: str
) -> ir.Value:
    """LayerNormalization of each head of x [B, S, heads * head_dim]. weight: [heads * head_dim], one for each."""
    g, place = b.graph, node(name)
    split = g.op("Reshape", x, g.ints(0, 0, heads, head_dim), name=f"{place}/SplitHeads")
    ones = g.array(f"{name}.ones", np.ones(head_dim, b.activation))
    normed = g.op("LayerNormalization", split, ones, name=f"{place}/LayerNorm", axis=-1, epsilon=eps)
    joined = g.op("Reshape", normed, g.ints(0, 0, heads * head_dim), name=f"{place}/JoinHeads")
    return g.op("Mul", joined, g.array(f"{name}.weight", weight.astype(b.activation)), name=f"{place}/Mul")


def add_layer_norm(
    b: Build, stream: Stream, name: str, size: int, eps: float, *, has: Sequence[str] = BOTH, shift: float = 0.0
) -> tuple[ir.Value, Stream]:
    """layer_norm of the stream's sum, which only linear layers read, and the stream with its delta added."""
    total = add(b, stream, name)
    return layer_norm(b, total, name, size, eps, has=has, shift=shift), Stream(total)


def per_head_rms_norm(
    b: Build, x: ir.Value, heads: int, head_dim: int, weight: FloatArray, eps: float, name: str
) -> ir.Value:
    """RMS norm of each head of x [B, S, heads * head_dim]."""
    place = node(name)
    split = b.graph.op("Reshape", x, b.graph.ints(0, 0, heads, head_dim), name=f"{place}/SplitHeads")
    normed = rms_norm(b, split, weight, eps, name)
    return b.graph.op("Reshape", normed, b.graph.ints(0, 0, heads * head_dim), name=f"{place}/JoinHeads")


def group_norm(b: Build, x: ir.Value, name: str, size: int, eps: float) -> ir.Value:
    """Of all channels and frames of x [B, size, T] together (a single group); each channel is then multiplied by the
    checkpoint's `name`.weight and moved by .bias."""
    g, place = b.graph, node(name)
    flat = g.op("Reshape", x, g.ints(0, 1, -1), name=f"{place}/Flatten")
    ends = [g.array(f"{name}.{part}", np.array([value], b.activation)) for part, value in (("one", 1), ("zero", 0))]
    normed = g.op("InstanceNormalization", flat, *ends, name=f"{place}/InstanceNorm", epsilon=eps)
    back = g.op("Reshape", normed, g.ints(0, size, -1), name=f"{place}/Unflatten")
    weight, bias = (
        g.array(f"{name}.{part}", b.vector(f"{name}.{part}", size)[:, None].astype(b.activation))
        for part in ("weight", "bias")
    )
    return g.op("Add", g.op("Mul", back, weight, name=f"{place}/Mul"), bias, name=f"{place}/Add")
