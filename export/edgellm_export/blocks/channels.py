"""Factors and offsets moved along the graph into the linear layers that read a value: (x / s) @ (W * s).T is x @ W.T,
and (x - m) @ W.T is x @ W.T without W @ m, which the layer's bias takes in.

A value's channels are divided where it is made: in a norm's weight and bias, or in the rows of the linear layer whose
output it is a multiple of. That costs nothing at run time, and integers with one scale for several channels then hold
channels of like size. The idea is SmoothQuant's (Xiao et al., arXiv 2211.10438) and AWQ's (Lin et al., arXiv
2306.00978); that of the offsets Outlier Suppression+'s (Wei et al., arXiv 2304.09145).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgellm.types import FloatArray, IntArray
from edgellm_export.checkpoint.tensors import DividedRows, LazyTensor, ScaledColumns
from edgellm_export.onnx.builder import Projection

ChannelScales = Mapping[str, FloatArray]  # by origin, s [size]
ChannelShifts = Mapping[str, FloatArray]  # by origin, m [size]
ChannelSplits = Mapping[str, Sequence[IntArray]]  # by the layer that makes them, the channels of each part


@dataclass(frozen=True)
class ChannelMoves:
    """In place of a value, (value - shift) / scale is made. `splits`: where a value is made in parts, each by a matrix
    of its own, and read by as many, whose products are added."""

    scales: ChannelScales = field(default_factory=dict)
    shifts: ChannelShifts = field(default_factory=dict)
    splits: ChannelSplits = field(default_factory=dict)


UNMOVED = ChannelMoves()


@dataclass(frozen=True)
class Channels:
    """The channels of a graph's values. `projections`: the linear layers that the graph has so far, the head among
    them."""

    moves: ChannelMoves = UNMOVED
    projections: list[Projection] = field(default_factory=list)
    _origins: dict[ir.Value, str] = field(default_factory=dict)

    def divided(self, origin: str, vector: FloatArray) -> FloatArray:
        """A norm's weight or bias, or a linear layer's bias, divided by the scale of the value it makes."""
        return vector / self.moves.scales[origin] if origin in self.moves.scales else vector

    def moved(self, origin: str, bias: FloatArray) -> FloatArray:
        """The bias of the norm or linear layer that makes the value."""
        return self.divided(origin, bias - self.moves.shifts[origin] if origin in self.moves.shifts else bias)

    def divided_rows(self, origin: str, weight: LazyTensor) -> LazyTensor:
        """The matrix of a linear layer that makes the value, likewise."""
        return DividedRows(weight, self.moves.scales[origin]) if origin in self.moves.scales else weight

    def made(self, value: ir.Value, origin: str) -> ir.Value:
        """Remember that `value` is the one called `origin`."""
        self._origins[value] = origin
        return value

    def scale_of(self, value: ir.Value) -> tuple[str, FloatArray] | None:
        """The origin of a value and what its channels were divided by; None where they are as they were."""
        origin = self._origins.get(value)
        return None if origin is None or origin not in self.moves.scales else (origin, self.moves.scales[origin])

    def shift_of(self, value: ir.Value) -> FloatArray | None:
        """What was subtracted from the value's channels."""
        return self.moves.shifts.get(self._origins.get(value, ""))

    def missing(self, x: ir.Value, weight: LazyTensor) -> FloatArray | None:
        """What the product of `x` and the checkpoint's `weight` lacks, for the layer's bias: [rows]. None: nothing."""
        shift = self.shift_of(x)
        return None if shift is None else np.asarray(weight.rows(0, weight.shape[0]) @ shift, np.float32)

    def read(
        self, x: ir.Value, weight: LazyTensor, name: str, *, into_softmax: bool, outer: bool = False
    ) -> LazyTensor:
        """The matrix of the layer `name`, which reads `x`, its columns multiplied by the scale of `x`."""
        origin = self._origins.get(x)
        if origin is not None and origin in self.moves.scales:
            weight = ScaledColumns(weight, self.moves.scales[origin])
        self.projections.append(Projection(name, x, weight, origin, into_softmax, outer))
        return weight
