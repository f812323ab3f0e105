"""What a float run over calibration text decides about a package, one layer in memory at a time: the channel scales,
and how each matrix is rounded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.types import FloatArray, ProgressHook
from edgellm_export.blocks.channels import UNMOVED, ChannelMoves, ChannelScales, ChannelShifts
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.float_run.layers import FloatLayer, FloatRun, ObservedLinear, States, Texts
from edgellm_export.quantize.carried import carries
from edgellm_export.quantize.choice import LIMIT, SOFTMAX_LIMIT, PreparedMatrix, choose, choose_carried, keep
from edgellm_export.quantize.formats import MatrixFormat
from edgellm_export.quantize.row_formats import with_uneven

# s = size ** STRENGTH: about half of the imbalance goes to the weights. On SmolLM2-135M at int8, 0.4 to 0.5 do equally
# well, 0.6 costs half as much divergence again.
STRENGTH = 0.45
# The first tokens of a sequence have a few enormous activations, which speak for no other token but must not be made
# still larger beside the rest: a tenth of their largest counts as a channel's size.
SINKS, SINK_SHARE = 4, 0.1
MIDDLE = (0.1, 99.9)  # percentiles of a channel's values that its shift is half-way between


@dataclass(frozen=True)
class Calibration:
    """`text`: where it comes from, or "none". `moves`: of channels. `prepared`: by layer name, the matrices that are
    rounded already."""

    text: str = "none"
    moves: ChannelMoves = UNMOVED
    prepared: Mapping[str, PreparedMatrix] = field(default_factory=dict)


NOT_CALIBRATED = Calibration()


@dataclass(frozen=True)
class Rounding:
    """How matrices are rounded: as the fastest of `candidates` that is close enough. Their arrays lie in `directory`
    afterwards. What the checkpoint holds as integers that a candidate can hold too is not rounded."""

    candidates: Sequence[MatrixFormat]
    directory: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def rounded(
        self, inputs: FloatArray, weight: LazyTensor, candidates: Sequence[MatrixFormat], limit: float
    ) -> PreparedMatrix:
        """A matrix that is multiplied by inputs [tokens, columns], with an error of at most `limit` if it can be."""
        choice = choose_carried(weight, inputs, candidates, limit)
        if choice is None:
            choice = choose(weight.rows(0, weight.shape[0]), inputs, candidates, limit)
        file = self.directory / f"{next(self._numbers)}.npy"
        return keep(choice.form, choice.error, choice.form.arrays(choice.codes), file)

    def keeps(self, weight: LazyTensor) -> bool:
        """Whether the checkpoint's own integers of a matrix can stay."""
        return any(carries(weight, form.grid) for form in self.candidates)

    def linear(self, linear: ObservedLinear, weight: LazyTensor, scales: ChannelScales) -> PreparedMatrix:
        """The layer's matrix `weight`, which `scales` have changed already."""
        inputs = np.concatenate(linear.inputs)
        if linear.origin is not None and linear.origin in scales:
            inputs /= scales[linear.origin]
        limit = SOFTMAX_LIMIT if linear.into_softmax else LIMIT
        return self.rounded(inputs, weight, with_uneven(self.candidates, inputs), limit)


def calibrate_layers(
    run: FloatRun[Texts], texts: Sequence[Texts], origin: str, rounding: Rounding, progress: ProgressHook
) -> Calibration:
    """Scales and matrices of all layers. `origin`: what the texts are."""
    scales: dict[str, FloatArray] = {}
    prepared: dict[str, PreparedMatrix] = {}
    done = itertools.count(1)

    def round_layer(layer: FloatLayer, states: States) -> list[FloatArray]:
        after, linears = layer.observed(states)
        scales.update(channel_scales(scalable(layer, linears, rounding)))
        weights = layer.weights(ChannelMoves(scales))
        prepared.update({each.name: rounding.linear(each, weights[each.name], scales) for each in linears})
        progress(next(done), run.num_layers)
        return after

    run.through(texts, round_layer)
    return Calibration(described(texts, origin), ChannelMoves(scales), prepared)


def scalable(layer: FloatLayer, linears: Sequence[ObservedLinear], rounding: Rounding) -> list[ObservedLinear]:
    """Those that read values whose channels may be scaled: not where a matrix that reads the same keeps its integers,
    whose columns would be multiplied."""
    weights = layer.weights(UNMOVED)
    kept = {linear.origin for linear in linears if rounding.keeps(weights[linear.name])}
    return [linear for linear in linears if linear.origin not in kept]


def described(texts: Sequence[Sized], origin: str) -> str:
    """For the report."""
    return f"{sum(map(len, texts))} tokens of {origin}"


def channel_shifts(linears: Sequence[ObservedLinear]) -> dict[str, FloatArray]:
    """By origin, the middle [size] of each channel's range: with it subtracted, ranges are as narrow as they can be.
    Zeros where values are not numbers."""
    read = {linear.origin: np.concatenate(linear.inputs) for linear in linears if linear.origin is not None}
    return {origin: _middle(values) for origin, values in read.items()}


def _middle(values: FloatArray) -> FloatArray:
    if not np.isfinite(values).all():
        return np.zeros(values.shape[1], np.float32)
    return np.asarray(np.percentile(values, MIDDLE, axis=0).mean(axis=0), np.float32)


def shifted(linears: Sequence[ObservedLinear], shifts: ChannelShifts) -> list[ObservedLinear]:
    """The same, with what they will read."""
    return [
        replace(linear, inputs=[values - shifts[linear.origin] for values in linear.inputs])
        if linear.origin is not None and linear.origin in shifts
        else linear
        for linear in linears
    ]


def channel_scales(linears: Sequence[ObservedLinear]) -> dict[str, FloatArray]:
    """By origin, the factor [size] of each channel."""
    read = {linear.origin: linear.inputs for linear in linears if linear.origin is not None}
    return {origin: scale_of(channel_sizes(inputs)) for origin, inputs in read.items()}


def channel_sizes(inputs: Sequence[FloatArray]) -> npt.NDArray[np.float64]:
    """[size] for values [length, size] of each sequence: how large a channel usually is."""
    first = np.concatenate([values[:SINKS] for values in inputs])
    rest = np.concatenate([values[SINKS:] for values in inputs] if len(inputs[0]) > SINKS else inputs)
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
