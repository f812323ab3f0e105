"""Single layers of a model over whole sequences: of the float model, with what they read, and of a written package."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from edgellm.system.cpu import usable_cores
from edgellm.types import FloatArray
from edgellm_export.blocks.build import Material, TensorSource
from edgellm_export.blocks.channels import ChannelScales
from edgellm_export.checkpoint.tensors import LazyTensor
from edgellm_export.float_run.pieces import Feeds, LayerRuns, run_layer
from edgellm_export.float_run.segments import DataFiles, Segment
from edgellm_export.onnx.builder import BuiltGraph
from edgellm_export.quantize import WeightScheme, scheme_for

FLOAT = scheme_for("fp32", "cpu")
States = Sequence[FloatArray]  # of each sequence, [1, length, hidden_size]
Texts = TypeVar("Texts", bound=Sized, contravariant=True)


@dataclass(frozen=True)
class ObservedLinear:
    """A linear layer with what it read. `origin`: see edgellm_export.blocks.channels. `inputs`: [length, columns] per
    sequence; of an expert, those tokens that it was chosen for. `outer`: see FloatScheme.linear."""

    name: str
    origin: str | None
    inputs: Sequence[FloatArray]
    outer: bool = False

    @property
    def tokens(self) -> int:
        """How many it read."""
        return sum(map(len, self.inputs))


class LayerBuilder(Protocol):
    def __call__(self, material: Material, *, observe: bool = False) -> BuiltGraph:
        """The layer's segment, see edgellm_export.graphs.parts.layer_segment."""


@dataclass(frozen=True)
class FloatLayer:
    """A layer of the float model. `feeds`: its inputs for each sequence, but for `hidden`, the states before it.
    `part`: of an encoder-decoder, the side. `adds`: its output is its input and what it adds, not a norm's."""

    index: int
    build: LayerBuilder
    tensors: TensorSource
    feeds: Sequence[Feeds]
    part: Literal["encoder", "decoder"] | None = None
    adds: bool = True

    def run(self, states: States) -> list[FloatArray]:
        """The states behind it."""
        return _states(self._runs(Material(self.tensors, FLOAT), states))

    def observed(self, states: States) -> tuple[list[FloatArray], list[ObservedLinear]]:
        """`run`, and its linear layers with what they read."""
        runs = self._runs(Material(self.tensors, FLOAT), states, observe=True)
        return _states(runs), [ObservedLinear(p.name, p.origin, inputs, p.outer) for p, inputs in runs.read]

    def weights(self, scales: ChannelScales) -> dict[str, LazyTensor]:
        """The matrices of its linear layers by their names, as `scales` change them."""
        built = self.build(Material(self.tensors, FLOAT, scales))
        return {projection.name: projection.weight for projection in built.projections}

    def quantized(self, material: Material, states: States, data: DataFiles | None = None) -> list[FloatArray]:
        """The states behind it where its matrices are those of `material`, in `data` if that is written already."""
        cast = [_cast(fed, material.scheme.activation) for fed in self.fed(states)]
        apart = replace(material, apart=True)
        return _states(run_layer(self.build(apart), apart, cast, data=data))

    def fed(self, states: States) -> list[Feeds]:
        """Its inputs; `states` may be those of the first sequences."""
        return [{**fed, "hidden": hidden} for fed, hidden in zip(self.feeds, states, strict=False)]

    def _runs(self, material: Material, states: States, *, observe: bool = False) -> LayerRuns:
        apart = replace(material, apart=True)
        return run_layer(self.build(apart, observe=observe), apart, self.fed(states), observe=observe)


def _states(runs: LayerRuns) -> list[FloatArray]:
    return [np.asarray(run["hidden_out"], np.float32) for run in runs.values]


# What is done with each layer in turn: the states before it to the states behind it.
Step = Callable[[FloatLayer, States], list[FloatArray]]


class FloatRun(Protocol[Texts]):
    """A float32 run of a checkpoint over whole texts, one layer in memory at a time."""

    @property
    def num_layers(self) -> int: ...

    def through(self, texts: Sequence[Texts], step: Step) -> list[FloatArray]:
        """Embeds the texts and takes `step` with each layer. Returns the states behind the last."""

    def with_ends(self, ends: WeightScheme) -> FloatRun[Texts]:
        """The same with what is before and behind the layers stored as `ends`, for `through` and `distance`."""

    def distance(self, texts: Sequence[Texts], expected: States, found: States) -> float:
        """How far the model's outputs for states `found` behind its last layer are from those of the float model for
        `expected`: KL divergence in nats per token where it generates, else the relative size of the difference."""


@dataclass(frozen=True)
class StoredLayers:
    """Layers of a written package, beside the float model's."""

    material: Material
    data: DataFiles

    def error(self, layer: FloatLayer, before: States, after: States) -> float:
        """How far the package's layer is from the float layer on the first sequence, both given the float model's
        states `before`: the relative size of the difference, beside what the layer adds where that is known."""
        (found,) = layer.quantized(self.material, before[:1], self.data)
        wrong = found - after[0]
        before_it = before[0][:, -after[0].shape[1] :]  # a last layer may leave streams out, as ProphetNet's does
        added = layer.adds and after[0].shape == before_it.shape
        right = after[0] - before_it if added else after[0]
        return float(np.linalg.norm(wrong)) / max(float(np.linalg.norm(right)), 1e-30)


def _cast(feeds: Feeds, activation: np.dtype[Any]) -> Feeds:
    return {
        name: np.asarray(array, activation) if array.dtype == np.float32 else array for name, array in feeds.items()
    }


def segment_of(built: BuiltGraph) -> Segment:
    return Segment(built, threads=usable_cores())
