"""Attention weights as a picture. Needs matplotlib, the extra `plot`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import MissingDependencyError, OptionError
from edgellm.models.attentions import Attentions
from edgellm.types import FloatArray

SUFFIXES = (".png", ".svg")
LABELLED = 60  # tokens; more would not be legible
INCHES = 3.2  # of a panel


def plot_attentions(
    attentions: Attentions, path: str | PathLike[str], *, layer: int | None = None, head: int | None = None
) -> None:
    """Write the picture `path` (.png or .svg): a panel per head of `layer`, or per layer (None) with the mean of its
    heads; with `head`, only that one. Rows are the tokens that look, columns those they look at; darker is more.

    Negative numbers count from the end. Raises OptionError, or MissingDependencyError where matplotlib is missing.
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
