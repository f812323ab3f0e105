"""Attention weights of one pass, from packages exported with --attentions, and their picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import MissingDependencyError, OptionError
from edgellm.ort.binding import AnyArray
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import DecoderFacts, EncoderDecoderFacts, GraphFile, Manifest
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import FloatArray, IntArray

SUFFIXES = (".png", ".svg")  # of a picture
LABELLED = 60  # tokens; more would not be legible
INCHES = 3.2  # of a panel


@dataclass(frozen=True)
class Attentions:
    """weights: [layers, heads, tokens, seen] float32: how much each token looks at each that it sees; rows sum to 1.
    tokens: those that look, as the vocabulary has them, "" where the package has no tokenizer. seen: those that they
    look at: the same, but for a decoder's attention to its source."""

    weights: FloatArray
    tokens: tuple[str, ...]
    seen: tuple[str, ...]


@dataclass(frozen=True)
class DecoderResult:
    """What a decoder says of one prompt. tokens: ids. logits: [tokens, vocab] float32, what it predicts after each."""

    tokens: tuple[int, ...]
    logits: FloatArray
    attentions: Attentions | None


@dataclass(frozen=True)
class EncoderDecoderResult:
    """What an encoder-decoder says of a source and a target. source, target: token ids, the start token included.
    logits: [target, vocab] float32, what it predicts after each of the target's tokens."""

    source: tuple[int, ...]
    target: tuple[int, ...]
    logits: FloatArray
    encoder_attentions: Attentions | None
    decoder_attentions: Attentions | None
    cross_attentions: Attentions | None


def token_texts(tokenizer: Tokenizer | None, tokens: Sequence[int]) -> tuple[str, ...]:
    return tuple("" if tokenizer is None else tokenizer.token_of(token) for token in tokens)


def check_attentions(graph: GraphFile) -> None:
    """Raises OptionError where the graph does not give its attention weights."""
    if not graph.attentions:
        raise OptionError(
            "output_attentions needs a package that was exported for it: `edgellm export SOURCE OUT --attentions`"
        )


def decoder_pass(
    loaded: LoadedGraph, manifest: Manifest[DecoderFacts], graph: GraphFile, tokens: IntArray
) -> tuple[FloatArray, FloatArray]:
    """logits [tokens, vocab] and weights [layers, heads, tokens, tokens], in one run over all tokens."""
    length = len(tokens)
    feeds = {
        "input_ids": tokens[None],
        "attention_mask": np.ones((1, length), np.int64),
        "logits_to_keep": np.array([length], np.int64),
        **{
            past: np.zeros((1, each.heads, length, each.size), each.array_dtype)
            for each in manifest.model.cache.tensors()
            for past, _ in each.ports
        },
    }
    logits, *weights = (array.numpy()[0] for array in loaded.run(feeds, ["logits", *graph.attentions]))
    return logits, np.stack(weights)


def encoder_decoder_pass(
    encoder: LoadedGraph,
    decoder: LoadedGraph,
    manifest: Manifest[EncoderDecoderFacts],
    source: IntArray,
    target: IntArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """logits [target, vocab], and the weights [layers, heads, ...] of source to source, target to target, target to
    source; in one run of each graph."""
    graphs, layout, length = manifest.graphs, manifest.model.cache, len(target)
    mask = np.ones((1, len(source)), np.int64)
    names = manifest.model.cross_cache.names()
    outputs = [*(present for present, _ in names), *graphs["encoder"].attentions]
    found = encoder.run({"input_ids": source[None], "attention_mask": mask}, outputs)
    empty = np.zeros((1, layout.num_kv_heads, length, layout.head_dim), layout.dtype)
    feeds: dict[str, AnyArray] = {
        "input_ids": target[None],
        "decoder_attention_mask": np.ones((1, length), np.int64),
        "encoder_attention_mask": mask,
        "logits_to_keep": np.array([length], np.int64),
        **{past: value for (_, past), value in zip(names, found, strict=False)},
        **{past: empty for past, _ in layout.names()},
    }
    own, across = graphs["decoder"].attentions, graphs["decoder"].cross_attentions
    logits, *weights = (array.numpy()[0] for array in decoder.run(feeds, ["logits", *own, *across]))
    seen = np.stack([array.numpy()[0] for array in found[len(names) :]])
    return logits, seen, np.stack(weights[: len(own)]), np.stack(weights[len(own) :])


def plot_attentions(
    attentions: Attentions, path: str | PathLike[str], *, layer: int | None = None, head: int | None = None
) -> None:
    """Write the picture `path` (.png or .svg): a panel per head of `layer`, or per layer (None) with the mean of its
    heads; with `head`, only that one. Rows are the tokens that look, columns those they look at; darker is more.

    Negative numbers count from the end. Needs the extra `plot`. Raises OptionError or MissingDependencyError.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES or not path.parent.is_dir():
        raise OptionError(
            f"the picture is {str(path)!r}, expected a name that ends in {' or '.join(SUFFIXES)}, in a directory that "
            "exists"
        )
    panels = _panels(attentions.weights, layer, head)
    columns = math.ceil(math.sqrt(len(panels)))
    rows = math.ceil(len(panels) / columns)
    figure = _figure_class()(figsize=(INCHES * columns, INCHES * rows), layout="constrained")
    for place, (title, weights) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(weights, cmap="Blues", vmin=0, vmax=max(float(weights.max()), 1e-6))
        axes.set_title(title, fontsize=9)
        _label(axes.set_xticks, attentions.seen, rotation=90)
        _label(axes.set_yticks, attentions.tokens)
    try:
        figure.savefig(path)
    except OSError as error:
        raise OptionError(f"the picture {str(path)!r} cannot be written ({error.strerror})") from error


def _panels(weights: FloatArray, layer: int | None, head: int | None) -> list[tuple[str, FloatArray]]:
    """Titles and [tokens, tokens] each."""
    layers, heads = weights.shape[:2]
    chosen = range(layers) if layer is None else [_place("layer", layer, layers)]
    if head is not None:
        which = _place("head", head, heads)
        return [(f"layer {i}, head {which}", weights[i, which]) for i in chosen]
    if layer is None:
        return [(f"layer {i}, mean of {heads} heads", np.asarray(weights[i].mean(0))) for i in chosen]
    return [(f"layer {chosen[0]}, head {i}", weights[chosen[0], i]) for i in range(heads)]


def _place(name: str, value: Any, count: int) -> int:
    if type(value) is not int or not -count <= value < count:
        raise OptionError(f"{name} is {value!r}, expected a whole number from {-count} to {count - 1}")
    return value % count


def _label(set_ticks: Callable[..., Any], tokens: Sequence[str], **options: Any) -> None:
    if len(tokens) <= LABELLED and any(tokens):
        set_ticks(range(len(tokens)), tokens, fontsize=6, **options)


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "plotting needs matplotlib, which is not installed: `pip install edgellm[plot]`"
        ) from error
    return Figure
