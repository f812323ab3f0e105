"""Factors moved along the graph into the linear layers that read a value: (x / s) @ (W * s).T is x @ W.T.

A value's channels are divided where it is made: in a norm's weight and bias, or in the rows of the linear layer whose
output it is a multiple of. That costs nothing at run time, and integers with one scale for several channels then hold
channels of like size. The idea is SmoothQuant's (Xiao et al., arXiv 2211.10438) and AWQ's (Lin et al., arXiv
2306.00978).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from edgellm.types import FloatArray
from edgellm_export.checkpoint.tensors import DividedRows, LazyTensor, ScaledColumns
from edgellm_export.onnx.builder import Projection

ChannelScales = Mapping[str, FloatArray]  # by origin, s [size]


@dataclass(frozen=True)
class Channels:
    """The channels of a graph's values. `projections`: the linear layers that the graph has so far, the head among
    them."""

    scales: ChannelScales = field(default_factory=dict)
    projections: list[Projection] = field(default_factory=list)
    _origins: dict[ir.Value, str] = field(default_factory=dict)

    def divided(self, origin: str, vector: FloatArray) -> FloatArray:
        """A norm's weight or bias, or a linear layer's bias, divided by the scale of the value it makes."""
        return vector / self.scales[origin] if origin in self.scales else vector

    def divided_rows(self, origin: str, weight: LazyTensor) -> LazyTensor:
        """The matrix of a linear layer that makes the value, likewise."""
        return DividedRows(weight, self.scales[origin]) if origin in self.scales else weight

    def made(self, value: ir.Value, origin: str) -> ir.Value:
        """Remember that `value` is the one called `origin`."""
        self._origins[value] = origin
        return value

    def same(self, value: ir.Value, other: ir.Value) -> ir.Value:
        """Remember that `value` has tokens of `other`, whose channels are as they were."""
        origin = self.origin_of(other)
        return value if origin is None else self.made(value, origin)

    def origin_of(self, value: ir.Value) -> str | None:
        return self._origins.get(value)

    def scale_of(self, value: ir.Value) -> tuple[str, FloatArray] | None:
        """The origin of a value and what its channels were divided by; None where they are as they were."""
        origin = self._origins.get(value)
        return None if origin is None or origin not in self.scales else (origin, self.scales[origin])

    def read(
        self, x: ir.Value, weight: LazyTensor, name: str, *, outer: bool = False, share: float = 1.0
    ) -> LazyTensor:
        """The matrix of the layer `name`, which reads `x`, its columns multiplied by the scale of `x`."""
        found = self.scale_of(x)
        if found is not None:
            weight = ScaledColumns(weight, found[1])
        self.projections.append(Projection(name, x, weight, self._origins.get(x), outer, share))
        return weight
