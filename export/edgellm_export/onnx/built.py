"""A finished graph whose weights are still to be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.onnx.builder import Produced, Stored


@dataclass(frozen=True)
class Projection:
    """The linear layer at the node `name`: x @ weight.T. `weight` is as it will be stored, before rounding. `origin`:
    the value whose channels may be scaled that `x` is, if any. `into_softmax`: see Build.project."""

    name: str
    x: ir.Value
    weight: LazyTensor
    origin: str | None
    into_softmax: bool


@dataclass(frozen=True)
class BuiltGraph:
    """A model whose stored initializers still need their bytes: `produced` fills the regions, `stored` reads them.
    `projections`: its linear layers, in order."""

    model: ir.Model
    stored: Sequence[Stored]
    produced: Sequence[Produced]
    projections: Sequence[Projection]
