"""What an encoder's attention is made of: every token attends to every token of its text, or to those near it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.blocks.attention import multi_head
from edgellm_export.blocks.build import Build, node
from edgellm_export.blocks.rope import StaticRope
from edgellm_export.blocks.rotary import turned
from edgellm_export.checkpoint.tensors import LazyTensor, RowSlice


@dataclass(frozen=True)
class Sides:
    """Queries, keys and values: their layers' names, matrices and biases."""

    names: Sequence[str]
    weights: Sequence[LazyTensor]
    biases: Sequence[FloatArray | None]

    def vector(self, side: int) -> FloatArray:
        """A bias, zeros where there is none."""
        found = self.biases[side]
        return np.zeros(self.weights[side].shape[0], np.float32) if found is None else found


@dataclass(frozen=True)
class Scores:
    """What is done to the products of queries and keys: times `scale` (None: 1 / sqrt(head_dim)), plus `bias`
    [1 or B, 1 or N, S, S], both turned by `rope`, whose tables have so many `positions`."""

    num_heads: int
    scale: float | None = None
    bias: ir.Value | None = None
    rope: StaticRope | None = None
    positions: int = 0


def apart(b: Build, names: Sequence[str], rows: int, columns: int, *, bias: bool = True) -> Sides:
    """A matrix [rows, columns] for each."""
    weights = [b.tensors.take(f"{name}.weight", (rows, columns)) for name in names]
    return Sides(names, weights, [b.vector(f"{name}.bias", rows) if bias else None for name in names])


def packed(b: Build, name: str, rows: int, columns: int, *, bias: bool) -> Sides:
    """One matrix [3 rows, columns] for all, in which they stand on top of each other."""
    whole, names = b.tensors.take(f"{name}.weight", (3 * rows, columns)), [f"{name}.{s}" for s in ("q", "k", "v")]
    weights = [RowSlice(f"{each}.weight", whole, i * rows, (i + 1) * rows) for i, each in enumerate(names)]
    vectors = np.split(b.vector(f"{name}.bias", 3 * rows), 3) if bias else [None] * 3
    return Sides(names, weights, vectors)


def self_attention(
    b: Build, x: ir.Value, sides: Sides, keys: ir.Value, scores: Scores, *, scaled: bool = True
) -> ir.Value:
    """[B, S, size] to the same. keys: [B, S] int32, ones for tokens, then zeros. `scaled`: the values' channels may be,
    as what comes out is a mean of them."""
    return attended(b, projected(b, x, sides, scaled=scaled), sides, keys, scores, scaled=scaled)


def projected(b: Build, x: ir.Value, sides: Sides, *, scaled: bool = True) -> list[ir.Value]:
    """Queries, keys and values, each [B, S, size]."""
    weights, biases, made = list(sides.weights), list(sides.biases), _made(sides)
    if scaled:
        weights[2] = b.channels.divided_rows(made, weights[2])
        biases[2] = None if biases[2] is None else b.channels.divided(made, biases[2])
    return [b.project(x, *side) for side in zip(weights, biases, sides.names, strict=True)]


def attended(
    b: Build, qkv: Sequence[ir.Value], sides: Sides, keys: ir.Value, scores: Scores, *, scaled: bool = True
) -> ir.Value:
    """What queries get of the values that `projected` has given."""
    place, options = node(sides.names[2].rsplit(".", 1)[0]), {} if scores.scale is None else {"scale": scores.scale}
    query, key, value = qkv
    if scores.rope is not None:
        name = sides.names[2].rsplit(".", 1)[0]
        query, key = (
            turned(b, side, scores.rope, scores.positions, scores.num_heads, f"{name}.{part}_rotary")
            for part, side in (("q", query), ("k", key))
        )
    inputs = (query, key, value, None, keys, *(() if scores.bias is None else (scores.bias,)))
    y = multi_head(b, *inputs, place=place, kept=b.attentions, num_heads=scores.num_heads, **options)
    return b.channels.made(y, _made(sides)) if scaled else y


def _made(sides: Sides) -> str:
    return f"{sides.names[2]}.attended"
