"""Attention to contents and to distances apart (DeBERTa, He et al., arXiv 2006.03654): queries meet vectors of
distances, and so do keys. What both give is added to the scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgellm.types import Array, FloatArray
from edgellm_export.blocks.build import Build, node
from edgellm_export.onnx.builder import Produced, Region
from edgellm_export.quantize import FloatScheme

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Distances:
    """`rows`: of the tables of vectors. `index`: which of them stands for a query's position minus a key's, from minus
    the longest text on: [2 * longest + 1]."""

    rows: int
    index: Index


@dataclass(frozen=True)
class Vectors:
    """What a layer has for each distance: [rows, N * head_dim], made when it is written."""

    name: str
    rows: Callable[[], FloatArray]


def distances(longest: int, span: int, buckets: int, furthest: int) -> Distances:
    """Of so many tokens, `span` on either side; in `buckets` up to `furthest` where these are above 0."""
    away = np.arange(-longest, longest + 1)
    found = bucketed(away, buckets, furthest) if buckets > 0 and furthest > 0 else away
    return Distances(2 * span, np.clip(found + span, 0, 2 * span - 1))


def bucketed(away: Index, buckets: int, furthest: int) -> Index:
    """Distances as transformers puts them into buckets: a bucket each up to half of these, then ever longer ranges."""
    middle = buckets // 2
    size = np.where(np.abs(away) < middle, middle - 1, np.abs(away)).astype(np.float32)
    shares = np.log(size / np.float32(middle)) / np.log(np.float32((furthest - 1) / middle))
    far = np.ceil(shares * np.float32(middle - 1)) + middle
    return np.where(size <= middle, away, far * np.sign(away)).astype(np.int64)


def distance_bias(
    b: Build, sides: Sequence[ir.Value], vectors: Sequence[Vectors | None], where: Distances, num_heads: int, place: str
) -> ir.Value | None:
    """[B, N, S, S] for queries and keys [B, S, N * head_dim], each with vectors to meet. None without any."""
    g, (query, key), (for_queries, for_keys) = b.graph, sides, vectors
    found = None
    if for_queries is not None:
        found = _met(b, query, for_queries, where, num_heads, f"{place}/c2p", down=True)
    if for_keys is None:
        return found
    met = _met(b, key, for_keys, where, num_heads, f"{place}/p2c", down=False)
    turned = g.op("Transpose", met, name=f"{place}/p2c/Turn", perm=[0, 1, 3, 2])
    return turned if found is None else g.op("Add", found, turned, name=f"{place}/distances/Add")


def _met(b: Build, x: ir.Value, vectors: Vectors, where: Distances, heads: int, place: str, *, down: bool) -> ir.Value:
    """[B, N, S, S]: token i times the vector of its distance from token j, which is i - j, or j - i where not `down`.

    Row i has the products with all distances, from that of the first token on: what it needs begins i places before.
    As rows of one place less they stand below each other (Dai et al., arXiv 1901.02860)."""
    g = b.graph
    length, twice, rows = _rows(b, x, where, down=down)
    table = _stored(b, vectors, (where.rows, b.shape.hidden_size))
    near = g.op("Gather", table, rows, axis=0, name=f"{place}/Gather")  # [2S, N * head_dim]
    split = g.op("Reshape", near, g.ints(0, heads, -1), name=f"{place}/SplitVectors")
    columns = g.op("Transpose", split, name=f"{place}/TurnVectors", perm=[1, 2, 0])  # [N, head_dim, 2S]
    tokens = g.op("Reshape", x, g.ints(0, 0, heads, -1), name=f"{place}/SplitHeads")
    tokens = g.op("Transpose", tokens, name=f"{place}/TurnHeads", perm=[0, 2, 1, 3])
    products = g.op("MatMul", tokens, columns, name=f"{place}/MatMul")  # [B, N, S, 2S]
    flat = g.op("Reshape", products, g.ints(0, 0, -1), name=f"{place}/Flat")
    less = g.op("Sub", length, g.ints(1), name=f"{place}/First")
    narrow = g.op("Sub", twice, g.ints(1), name=f"{place}/Narrow")
    end = g.op("Add", less, g.op("Mul", length, narrow, name=f"{place}/Size"), name=f"{place}/End")
    part = g.op("Slice", flat, less, end, g.ints(2), name=f"{place}/Slice")
    shape = g.op("Concat", g.ints(0, 0), length, narrow, axis=0, name=f"{place}/Shape")
    below = g.op("Reshape", part, shape, name=f"{place}/Below")
    return g.op("Slice", below, g.ints(0), length, g.ints(3), name=f"{place}/Columns")


def _rows(b: Build, x: ir.Value, where: Distances, *, down: bool) -> tuple[ir.Value, ir.Value, ir.Value]:
    """S and 2S, [1] each, and which vectors stand for the distances from S - 1 down to -S, or the other way: [2S].
    Shared by all layers."""
    g, root, longest = b.graph, f"/distances_{'down' if down else 'up'}", len(where.index) // 2
    known = g.lookup(root)
    if known is None:
        length = g.op("Shape", x, start=1, end=2, name=f"{root}/Shape")
        twice = g.op("Mul", length, g.ints(2), name=f"{root}/Twice")
        end = g.op("Squeeze", twice, g.ints(0), name=f"{root}/Squeeze")
        steps = g.op("Range", g.scalar(0), end, g.scalar(1), name=f"{root}/Range")
        first = g.op("Sub", length, g.ints(1), name=f"{root}/First")
        away = g.op("Sub", *((first, steps) if down else (steps, first)), name=f"{root}/Away")
        at = g.op("Add", away, g.ints(longest), name=f"{root}/At")
        rows = g.op("Gather", g.array("distances", where.index), at, axis=0, name=f"{root}/Gather")
        known = (length, twice, rows)
        g.remember(root, known)
    return known[0], known[1], known[2]


def _stored(b: Build, vectors: Vectors, shape: tuple[int, int]) -> ir.Value:
    """The table, in float16 where matrices have fewer bits than float32."""
    exact = isinstance(b.scheme, FloatScheme) and b.scheme.storage == np.float32
    kind = np.dtype(np.float32 if exact else np.float16)

    def pieces() -> Iterator[tuple[Array, ...]]:
        yield (np.ascontiguousarray(vectors.rows(), kind),)

    (table,) = b.graph.store(Produced((Region(vectors.name, kind, shape),), pieces))
    return table if kind == b.activation else b.graph.cast(table, b.activation, f"{node(vectors.name)}/Cast")
