"""What the graphs of all kinds of model share: hidden states in and out, and the segments that a float run consists of.

Segments are graphs over whole sequences: embedding, layers, norm and head, each to be run on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import onnx_ir as ir

from edgellm_export.blocks.build import Build, DecoderShape, Material, Stream, built
from edgellm_export.blocks.norms import add
from edgellm_export.onnx.builder import BuiltGraph

INT32, INT64, FLOAT = ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT
SIDES = ("key", "value")
END = np.iinfo(np.int64).max
GIVEN = ("hidden", "source")  # inputs of segments
ROWS: list[int | str | None] = ["rows", "length"]

Output = tuple[ir.Value, str, ir.DataType, Sequence[int | str | None]]
Inputs = TypeVar("Inputs")


def hidden_input(b: Build, name: str = "hidden", size: int | None = None) -> ir.Value:
    """States [B, S, size or hidden_size] that another segment has made."""
    return b.graph.input(name, b.activation_type, [f"{name}_rows", f"{name}_length", size or b.shape.hidden_size])


def stream_input(b: Build, widths: Sequence[int]) -> Stream:
    """States as `_hidden_output` gives them. widths: channels of the stream, and of each value beside it."""
    hidden = hidden_input(b, size=sum(widths))
    if len(widths) == 1:
        return Stream(hidden)
    residual, *beside = b.graph.ops(
        "Split", hidden, b.graph.ints(*widths), axis=-1, name="/hidden/Split", outputs=len(widths)
    )
    return Stream(residual, beside=(*beside,))


def layer_segment(b: Build, stream: Stream, *, observe: bool, more: Sequence[Output] = ()) -> BuiltGraph:
    """hidden_out, the stream as one value, and `more`. With `observe`, also the values [B, S, size] that linear layers
    read, under the names that the projections' x have, but for the segment's inputs."""
    read = dict.fromkeys(projection.x for projection in b.channels.projections if projection.x.name not in GIVEN)
    shape = [None] * 3  # without names: experts read as many tokens as chose them
    observed: list[Output] = [(x, str(x.name), b.activation_type, shape) for x in read] if observe else []
    return built(b, [_hidden_output(b, stream), *observed, *more])


def embedding_segment(
    material: Material,
    shape: DecoderShape,
    inputs: Callable[[Build], tuple[ir.Value, Inputs]],
    embed: Callable[[Build, ir.Value, Inputs], Stream],
) -> BuiltGraph:
    """The graph's inputs -> hidden_out."""
    b = material.build(shape, "embedding")
    return built(b, [_hidden_output(b, embed(b, *inputs(b)))])


def norm_segment(material: Material, shape: DecoderShape, norm: Callable[[Build, Stream], ir.Value]) -> BuiltGraph:
    """hidden -> hidden_out."""
    b = material.build(shape, "norm")
    normed = norm(b, Stream(hidden_input(b)))  # which may be the input itself
    return built(b, [_hidden_output(b, Stream(b.graph.op("Identity", normed, name="/hidden/Identity")))])


def head_segment(material: Material, shape: DecoderShape, head: Callable[[Build, ir.Value], ir.Value]) -> BuiltGraph:
    """hidden, normed -> logits. The tensors may hold a part of the vocabulary only."""
    b = material.build(shape, "head")
    return built(b, [(head(b, hidden_input(b)), "logits", b.activation_type, [*ROWS, "vocab_size"])])


def logits_to_keep(b: Build) -> ir.Value:
    return b.graph.optional_input("logits_to_keep", np.array([1], np.int64))


class Ending(Protocol):
    """What families of decoders and of encoder-decoders end with."""

    def final_norm(self, b: Build, stream: Stream) -> ir.Value: ...

    def head(self, b: Build, hidden: ir.Value) -> ir.Value: ...


def last_logits(b: Build, family: Ending, stream: Stream, keep: ir.Value, place: str) -> ir.Value:
    """Logits of the stream's last `keep` positions: only they go through the final norm and the head."""
    return float_logits(b, family.head(b, family.final_norm(b, _last(b, stream, keep, place))))


def float_logits(b: Build, logits: ir.Value) -> ir.Value:
    return logits if b.activation == np.float32 else b.graph.cast(logits, np.dtype(np.float32), "/lm_head/Cast")


def _last(b: Build, stream: Stream, keep: ir.Value, place: str) -> Stream:
    g = b.graph
    start = g.op("Neg", keep, name=f"{place}/keep/Neg")

    def cut(value: ir.Value, part: str) -> ir.Value:
        return g.op("Slice", value, start, g.ints(END), g.ints(1), name=f"{place}/keep/{part}/Slice")

    return Stream(cut(stream.residual, "residual"), None if stream.delta is None else cut(stream.delta, "delta"))


def _hidden_output(b: Build, stream: Stream) -> Output:
    """The stream as one value, with what is beside it behind its channels."""
    total = add(b, stream, "hidden")
    if not stream.beside:
        return total, "hidden_out", b.activation_type, [*ROWS, b.shape.hidden_size]
    whole = b.graph.op("Concat", total, *stream.beside, axis=-1, name="/hidden/Concat")
    return whole, "hidden_out", b.activation_type, [*ROWS, None]
