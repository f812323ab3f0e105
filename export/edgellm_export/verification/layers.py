"""A package as it was written, and its layers beside the float model's, which goes from end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edgellm.package.manifest import Manifest, ModelFacts
from edgellm.package.report import LayerReport
from edgellm.types import FloatArray, Progress
from edgellm_export.float_run.layers import FloatLayer, FloatRun, States, StoredLayers, Texts

Facts = TypeVar("Facts", bound=ModelFacts)


@dataclass(frozen=True)
class WrittenPackage(Generic[Facts]):
    """A directory that can be loaded, with its sealed manifest."""

    path: Path
    manifest: Manifest[Facts]
    layers: StoredLayers


def original_states(
    run: FloatRun[Texts], layers: StoredLayers, texts: Sequence[Texts], progress: Progress
) -> tuple[list[FloatArray], list[LayerReport]]:
    """The states behind the last layer, and the error of each of the package's layers on the first text."""
    reports: list[LayerReport] = []

    def compare(layer: FloatLayer, states: States) -> list[FloatArray]:
        after = layer.run(states)
        reports.append(LayerReport(layer.index, layers.error(layer, states, after), layer.part))
        progress("original", len(reports), run.num_layers)
        return after

    return run.through(texts, compare), reports
