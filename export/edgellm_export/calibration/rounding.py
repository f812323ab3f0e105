"""What a float run over calibration text decides about a package, one layer in memory at a time: the channel scales,
and how each matrix is rounded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.package.report import MixturePoint
from edgellm.types import FloatArray, ProgressHook
from edgellm_export.blocks.channels import ChannelScales
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.float_run.layers import FloatLayer, FloatRun, ObservedLinear, States, Texts
from edgellm_export.quantize import IntegerScheme
from edgellm_export.quantize.calibrated import PreparedMatrix, keep, rounded
from edgellm_export.quantize.carried import carries

# s = size ** STRENGTH: about half of the imbalance goes to the weights. On SmolLM2-135M at int8, 0.4 to 0.5 do equally
# well, 0.6 costs half as much divergence again.
STRENGTH = 0.45
# The first tokens of a sequence have a few enormous activations, which speak for no other token but must not be made
# still larger beside the rest: a tenth of their largest counts as a channel's size.
SINKS, SINK_SHARE = 4, 0.1
LEAST = 8  # tokens that say how large channels are: an expert may have seen fewer
UNLIKE = 2.0  # largest scale over smallest


@dataclass(frozen=True)
class Calibration:
    """`text`: where it comes from, or "none". `scales`: of channels. `prepared`: by layer name, the matrices that are
    rounded already. `mixture`: what was tried of mixtures of 8 and 4 bits."""

    text: str = "none"
    scales: ChannelScales = field(default_factory=dict)
    prepared: Mapping[str, PreparedMatrix] = field(default_factory=dict)
    mixture: Sequence[MixturePoint] = ()


NOT_CALIBRATED = Calibration()


@dataclass(frozen=True)
class Rounding:
    """How matrices are rounded: in the formats of `scheme`. Their arrays lie in `directory` afterwards."""

    scheme: IntegerScheme
    directory: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def linear(self, linear: ObservedLinear, weight: LazyTensor, scales: ChannelScales) -> PreparedMatrix:
        """The layer's matrix `weight`, which `scales` have changed already."""
        inputs = np.concatenate(linear.inputs)
        if linear.origin is not None and linear.origin in scales:
            inputs /= scales[linear.origin]
        form = self.scheme.form_of(linear.name, weight, outer=linear.outer)
        return keep(form, rounded(weight, inputs, form), self.directory / f"{next(self._numbers)}.npy")

    def keeps(self, linear: ObservedLinear, weight: LazyTensor) -> bool:
        """Whether the checkpoint's own integers of a layer's matrix stay."""
        return carries(weight, self.scheme.form_of(linear.name, weight, outer=linear.outer).grid)


def calibrate_layers(
    run: FloatRun[Texts], texts: Sequence[Texts], origin: str, rounding: Rounding, progress: ProgressHook
) -> Calibration:
    """Scales and matrices of all layers. `origin`: what the texts are."""
    scales: dict[str, FloatArray] = {}
    prepared: dict[str, PreparedMatrix] = {}
    known: dict[str, PreparedMatrix] = {}
    done = itertools.count(1)

    def round_layer(layer: FloatLayer, states: States) -> list[FloatArray]:
        after, linears = layer.observed(states)
        scales.update(scales_of(layer, linears, rounding))
        prepared.update(rounded_layer(layer, linears, scales, rounding, known))
        progress(next(done), run.num_layers)
        return after

    run.through(texts, round_layer)
    return Calibration(described(texts, origin), scales, prepared)


def rounded_layer(
    layer: FloatLayer, linears: Sequence[ObservedLinear], scales: ChannelScales, rounding: Rounding,
    known: dict[str, PreparedMatrix] | None = None,
) -> dict[str, PreparedMatrix]:  # fmt: skip
    """The layer's matrices by the layer's names. `scales`: of its channels and of those before it. `known`: matrices
    by their own names, those of this layer from now on; what layers share is rounded for the first of them."""
    weights, known = layer.weights(scales), {} if known is None else known
    for each in linears:
        weight = weights[each.name]
        if weight.name not in known:
            known[weight.name] = rounding.linear(each, weight, scales)
    return {each.name: known[weights[each.name].name] for each in linears}


def scales_of(layer: FloatLayer, linears: Sequence[ObservedLinear], rounding: Rounding) -> ChannelScales:
    """Of the layer's own channels."""
    found = channel_scales(scalable(layer, linears, rounding))
    return found if layer.adds else worthwhile(found)


def worthwhile(scales: ChannelScales) -> ChannelScales:
    """Where norms make the residuals, too, and a scale is undone by a multiplication: without those of channels that
    are of like size anyway."""
    return {origin: scale for origin, scale in scales.items() if scale.max() > UNLIKE * scale.min()}


def scalable(layer: FloatLayer, linears: Sequence[ObservedLinear], rounding: Rounding) -> list[ObservedLinear]:
    """Those that read values whose channels may be scaled: not where a matrix that reads the same keeps its integers,
    whose columns would be multiplied."""
    weights = layer.weights({})
    kept = {linear.origin for linear in linears if rounding.keeps(linear, weights[linear.name])}
    return [linear for linear in linears if linear.origin not in kept]


def described(texts: Sequence[Sized], origin: str) -> str:
    """For the report."""
    return f"{sum(map(len, texts))} tokens of {origin}"


def channel_scales(linears: Sequence[ObservedLinear]) -> dict[str, FloatArray]:
    """By origin, the factor [size] of each channel; not where too few tokens were read. The first layer that reads a
    value reads all of it, a router before its experts."""
    read = {linear.origin: linear for linear in reversed(linears) if linear.origin is not None}
    seen = {origin: linear.inputs for origin, linear in read.items() if linear.tokens >= LEAST}
    return {origin: scale_of(channel_sizes(inputs)) for origin, inputs in seen.items()}


def channel_sizes(inputs: Sequence[FloatArray]) -> npt.NDArray[np.float64]:
    """[size] for values [length, size] of each sequence: how large a channel usually is."""
    first = np.concatenate([values[:SINKS] for values in inputs])
    rest = np.concatenate([values[SINKS:] for values in inputs])
    if not len(rest):
        rest = np.concatenate(inputs)
    rms = np.sqrt(np.mean(np.square(rest, dtype=np.float64), axis=0))
    return np.asarray(np.maximum(rms, SINK_SHARE * np.abs(first).max(axis=0)), np.float64)


def scale_of(sizes: npt.NDArray[np.float64]) -> FloatArray:
    """[size], with a geometric mean of 1. Channels that are all but silent are treated as a hundredth of the usual
    size. Values that are not numbers give ones: the comparison with the original will refuse such a model and say
    why."""
    if not np.isfinite(sizes).all():
        return np.ones(sizes.shape, np.float32)
    floor = np.maximum(sizes, max(0.01 * float(np.median(sizes)), 1e-12))
    scale = floor**STRENGTH
    return np.asarray(scale / np.exp(np.log(scale).mean()), np.float32)
