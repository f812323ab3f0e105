"""A layer over whole sequences: its graph, and experts that are graphs of their own, one in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgellm.system.cpu import usable_cores
from edgellm.types import Array, FloatArray
from edgellm_export.blocks.build import Material
from edgellm_export.float_run.segments import DataFiles, Segment
from edgellm_export.onnx.builder import Apart, BuiltGraph, Projection

Feeds = Mapping[str, Array]
Read = tuple[Projection, Sequence[FloatArray]]


@dataclass(frozen=True)
class LayerRuns:
    """`values`: of each sequence, the graph's inputs and outputs by name. `read`: the linear layers that give what they
    read, and that, [tokens, columns] of each sequence."""

    values: Sequence[Feeds]
    read: Sequence[Read]


def run_layer(
    built: BuiltGraph, material: Material, feeds: Sequence[Feeds], *,
    observe: bool = False, data: DataFiles | None = None,
) -> LayerRuns:  # fmt: skip
    """The graph `built`, and its experts' of `material`, on each of `feeds`. With `data`, weights are read there."""
    segment = Segment(built, data=data, threads=usable_cores())
    found: list[Read] = []
    for apart in built.apart:
        feeds, read = _through_experts(segment, apart, material, feeds, data, observe=observe)
        found += read
    runs = [{**fed, **segment.run_all(fed)} for fed in feeds]
    return LayerRuns(runs, [*_reads(built, runs), *found] if observe else [])


def _through_experts(
    segment: Segment, apart: Apart, material: Material, feeds: Sequence[Feeds], data: DataFiles | None, *, observe: bool
) -> tuple[list[Feeds], list[Read]]:
    """`feeds` with what the experts made, for which the layer runs up to them first, and what they read."""
    sent = [_sent(segment, apart, fed) for fed in feeds]
    made = [np.zeros_like(tokens) for tokens, _ in sent]
    found: list[Read] = []
    for expert in range(apart.count):
        ends = [(int(sizes[:expert].sum()), int(sizes[: expert + 1].sum())) for _, sizes in sent]
        if not observe and all(start == stop for start, stop in ends):
            continue
        built = apart.build(material, expert, observe)
        one = Segment(built, data=data, threads=usable_cores())
        runs: list[Feeds] = []
        for (tokens, _), out, (start, stop) in zip(sent, made, ends, strict=True):
            own = tokens[:, start:stop]
            values = {apart.tokens: own, **one.run_all({apart.tokens: own})}
            out[:, start:stop] = values[apart.made]
            runs.append(values)
        found += _reads(built, runs) if observe else []
    return [{**fed, apart.made: each} for fed, each in zip(feeds, made, strict=True)], found


def _sent(segment: Segment, apart: Apart, fed: Feeds) -> tuple[Array, Array]:
    """A sequence's tokens sorted by expert [1, n, hidden], and how many each expert gets."""
    rows, length, hidden = fed["hidden"].shape
    nothing = np.zeros((1, rows * length * apart.chosen, hidden), fed["hidden"].dtype)
    values = segment.run_all({**fed, apart.made: nothing})
    return values[apart.tokens], values[apart.sizes]


def _reads(built: BuiltGraph, runs: Sequence[Feeds]) -> list[Read]:
    return [(each, [run[str(each.x.name)][0] for run in runs]) for each in built.projections]
