"""The float model from end to end, and the package's layers beside its own."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.package.report import LayerReport
from edgellm.types import FloatArray, Progress
from edgellm_export.float_run.layers import FloatLayer, FloatRun, States, StoredLayers, Texts


def original_states(
    run: FloatRun[Texts], written: StoredLayers, texts: Sequence[Texts], progress: Progress
) -> tuple[list[FloatArray], list[LayerReport]]:
    """The states behind the last layer, and the error of each of the package's layers on the first text."""
    reports: list[LayerReport] = []

    def compare(layer: FloatLayer, states: States) -> list[FloatArray]:
        after = layer.run(states)
        reports.append(LayerReport(layer.index, written.error(layer, states, after), layer.part))
        progress("original", len(reports), run.num_layers)
        return after

    return run.through(texts, compare), reports
