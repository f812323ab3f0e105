"""Factors moved from a norm's output into the linear layers that read it: (norm(x) / s) @ (W * s).T is norm(x) @ W.T.

They cost nothing at run time, and they let a block of channels that is quantized with one scale hold channels of like
size. The idea is SmoothQuant's (Xiao et al., arXiv 2211.10438) and AWQ's (Lin et al., arXiv 2306.00978).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgellm_export.tensors import LazyTensor, ScaledColumns

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Channels:
    """`scales`: by norm, s [size]. `read`: the norms that linear layers of this graph read, and their values."""

    scales: Mapping[str, FloatArray] = field(default_factory=dict)
    read: dict[str, ir.Value] = field(default_factory=dict)
    _norms: dict[ir.Value, str] = field(default_factory=dict)

    def of_norm(self, name: str, vector: FloatArray) -> FloatArray:
        """The norm's weight or bias, divided by its scale."""
        return vector / self.scales[name] if name in self.scales else vector

    def normed(self, value: ir.Value, name: str) -> ir.Value:
        """Remember which norm `value` comes from."""
        self._norms[value] = name
        return value

    def of_weight(self, x: ir.Value, weight: LazyTensor) -> LazyTensor:
        """The matrix that reads `x`, its columns multiplied by the scale of the norm that `x` comes from."""
        name = self._norms.get(x)
        if name is None:
            return weight
        self.read[name] = x
        return ScaledColumns(weight, self.scales[name]) if name in self.scales else weight
