"""What a float run over texts decides about an encoder package: how channels are moved (`blocks/channels.py`), and
how each matrix is rounded. One layer is in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgellm.text.encodings import Encoding
from edgellm.types import FloatArray, IntArray, ProgressHook
from edgellm_export.architectures.contract import LayerNames
from edgellm_export.blocks.build import node
from edgellm_export.blocks.channels import ChannelMoves
from edgellm_export.calibration.rounding import (
    Calibration,
    Rounding,
    channel_scales,
    channel_shifts,
    described,
    scalable,
    shifted,
)
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.float_run.encoder import EncoderRun
from edgellm_export.float_run.layers import FloatLayer, ObservedLinear, States
from edgellm_export.quantize.choice import LIMIT, SPREAD_COLUMNS, PreparedMatrix
from edgellm_export.quantize.formats import RowFormat
from edgellm_export.quantize.row_formats import with_static, with_uneven

UNLIKE = 2.0  # largest scale over smallest
LARGE = 6  # one channel in so many counts as large
STEP = 16  # parts have a multiple of so many channels

Prepared = dict[str, PreparedMatrix]


def calibrate_encoder(
    run: EncoderRun, texts: Sequence[Encoding], origin: str, rounding: Rounding, progress: ProgressHook
) -> Calibration:
    """Moves and matrices of all layers. `origin`: what the texts are."""
    shifts: dict[str, FloatArray] = {}
    scales: dict[str, FloatArray] = {}
    splits: dict[str, Sequence[IntArray]] = {}
    prepared: Prepared = {}

    def round_layer(layer: FloatLayer, states: States) -> list[FloatArray]:
        after, linears = layer.observed(states)
        shifts.update(channel_shifts(linears))
        linears = shifted(linears, shifts)
        scales.update(worthwhile(channel_scales(scalable(layer, linears, rounding))))
        moves, names = ChannelMoves(scales, shifts), run.model.family.layer_names(layer.index)
        whole = _rounded(linears, layer.weights(moves), moves, rounding)
        parts, matrices = _in_parts(layer, names, linears, whole, rounding, moves)
        splits.update({names.up: parts} if parts else {})
        prepared.update(matrices)
        progress(layer.index + 1, run.num_layers)
        return after

    run.through(texts, round_layer)
    return Calibration(described(texts, origin), ChannelMoves(scales, shifts, splits), prepared)


def worthwhile(scales: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Without those of values whose channels are of like size anyway: a norm's costs a multiplication at run time."""
    return {origin: scale for origin, scale in scales.items() if scale.max() > UNLIKE * scale.min()}


def _rounded(
    linears: Sequence[ObservedLinear], weights: Mapping[str, LazyTensor], moves: ChannelMoves, rounding: Rounding
) -> Prepared:
    """By layer name. `linears` read what is `shifted` already; `weights` are as the scales change them."""
    found: Prepared = {}
    for linear in linears:
        inputs, origin = np.concatenate(linear.inputs), linear.origin or ""
        scale, shift = moves.scales.get(origin), moves.shifts.get(origin)
        if scale is not None:
            inputs /= scale
            shift = None if shift is None else shift / scale
        forms = with_uneven(with_static(rounding.candidates, inputs, shift), inputs)
        found[linear.name] = rounding.rounded(inputs, weights[linear.name], forms, LIMIT)
    return found


def _in_parts(
    layer: FloatLayer,
    names: LayerNames,
    linears: Sequence[ObservedLinear],
    whole: Prepared,
    rounding: Rounding,
    moves: ChannelMoves,
) -> tuple[Sequence[IntArray], Prepared]:
    """The parts of the channels between a layer's feed-forward matrices, and the layer's matrices with those two in
    parts: where the second needs blocks as a whole and its parts, with a scale per token each, do not. Else no parts,
    and the matrices as they are `whole`."""
    up, down = node(names.up), node(names.down)
    if isinstance(whole[down].form, RowFormat) or not any(isinstance(f, RowFormat) for f in rounding.candidates):
        return (), whole
    weights = layer.weights(moves)
    if rounding.keeps(weights[up]) or rounding.keeps(weights[down]):
        return (), whole
    read = {linear.name: linear for linear in linears}
    inputs = np.concatenate(read[down].inputs)
    parts = by_size(inputs)
    weights = layer.weights(replace(moves, splits={names.up: parts}))
    downs = {f"{down}.{i}": np.ascontiguousarray(inputs[:, part]) for i, part in enumerate(parts)}
    found = {
        name: rounding.rounded(values, weights[name], with_uneven([RowFormat()], values), np.inf)
        for name, values in downs.items()
    }
    if together([(values, weights[name], found[name].error) for name, values in downs.items()]) > LIMIT:
        return (), whole
    ups = _rounded([replace(read[up], name=f"{up}.{i}") for i in range(len(parts))], weights, moves, rounding)
    others = {name: matrix for name, matrix in whole.items() if name not in (up, down)}
    return parts, {**others, **ups, **found}


def together(parts: Sequence[tuple[FloatArray, LazyTensor, float]]) -> float:
    """The error of a sum of products, from inputs [tokens, columns], matrix and error of each: errors add as squares
    do."""
    outputs = [inputs @ weight.rows(0, weight.shape[0]).T for inputs, weight, _ in parts]
    size = np.maximum(np.linalg.norm(np.add.reduce(outputs), axis=1), 1e-30)
    shares = [np.mean(np.square(np.linalg.norm(y, axis=1) / size)) for y in outputs]
    return float(sum(share * error**2 for share, (_, _, error) in zip(shares, parts, strict=True)) ** 0.5)


def by_size(values: FloatArray) -> Sequence[IntArray]:
    """The channels of values [tokens, size], those with the largest values apart: in trained models a few are many
    times as large as the others. The others in as many parts as it takes for their rounding to be compensated, all of
    them in one where there are too few channels."""
    size = values.shape[1]
    large = size // LARGE // STEP * STEP
    order = np.argsort(np.abs(values).max(axis=0), kind="stable")
    others = np.array_split(order[: size - large], -(-(size - large) // SPREAD_COLUMNS))
    return [np.sort(part) for part in (*others, order[size - large :]) if len(part)]
