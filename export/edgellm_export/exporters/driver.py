"""An export's files, and what they are expected to be, in the same steps for all kinds of model."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic

from edgellm.package.manifest import Manifest
from edgellm.package.report import Report
from edgellm.types import Progress
from edgellm_export.blocks.build import Material
from edgellm_export.calibration.rounding import NOT_CALIBRATED, Calibration, Rounding, calibrate_layers
from edgellm_export.checkpoint import TensorReader
from edgellm_export.exporters.contract import Outline, Written
from edgellm_export.exporters.matrices import matrix_reports, quantized_source
from edgellm_export.exporters.recipe import Recipe, Text
from edgellm_export.exporters.storing import store_borrowers, store_graphs
from edgellm_export.float_run.layers import FLOAT, StoredLayers
from edgellm_export.onnx.writer import outline_graph, write_graph
from edgellm_export.package.output import disk_errors
from edgellm_export.quantize import IntegerScheme
from edgellm_export.verification.layers import WrittenPackage


@dataclass(frozen=True)
class Driver(Generic[Text]):
    """Implements `contract.ForeseenExporter`."""

    recipe: Recipe[Text]

    def write(self, work: Path, progress: Progress) -> Written:
        recipe = self.recipe
        manifest, tensors = self._described(work), self._accounted()
        cache = recipe.cache(work, manifest, progress)
        with tempfile.TemporaryDirectory(dir=work) as matrices:
            calibration = self._calibrated(work, manifest, Path(matrices), progress)
            scheme = recipe.scheme
            if isinstance(scheme, IntegerScheme):
                scheme = replace(scheme, prepared=calibration.prepared)
            material = Material(tensors, scheme, calibration.scales, cache)
            graphs = recipe.graphs(material)
            projections = [each for graph in graphs.values() for each in graph.projections]
            data = store_graphs(graphs, work, write_graph, partial(progress, "weights"))
            store_borrowers(recipe.borrowers(material), work, data)

        def verify(sealed: Manifest[Any]) -> Report:
            report = recipe.verify(WrittenPackage(work, sealed, StoredLayers(material, data)), progress)
            matrices = matrix_reports(projections, scheme)
            source = quantized_source(recipe.checkpoint, projections, scheme)
            return replace(report, calibration=calibration.text, matrices=matrices, source=source)

        return Written(manifest, verify)

    def outline(self, work: Path) -> Outline:
        recipe = self.recipe
        manifest, tensors = self._described(work), self._accounted()
        material = Material(tensors, recipe.scheme, cache=recipe.expected_cache())
        graphs = recipe.graphs(material)
        projections = [each for graph in graphs.values() for each in graph.projections]
        data = store_graphs(graphs, work, outline_graph, lambda done, total: None)
        store_borrowers(recipe.borrowers(material), work, data)
        return Outline(manifest, projections, recipe.calibrates)

    def _described(self, work: Path) -> Manifest[Any]:
        manifest = self.recipe.manifest()
        self.recipe.describe(work, manifest)
        return manifest

    def _accounted(self) -> TensorReader:
        """The checkpoint's tensors, after a dry run that finds all that are missing, misshapen or left over."""
        tensors = TensorReader(self.recipe.checkpoint.tensors, ignore=self.recipe.ignored)
        self.recipe.graphs(Material(tensors, FLOAT))
        tensors.finish()
        return tensors

    def _calibrated(self, work: Path, manifest: Manifest[Any], matrices: Path, progress: Progress) -> Calibration:
        """The rounded matrices are files in `matrices`. Nothing where there is nothing to round, or no tokenizer."""
        recipe, scheme = self.recipe, self.recipe.scheme
        if not isinstance(scheme, IntegerScheme) or not recipe.choices.calibrate:
            return NOT_CALIBRATED
        texts = recipe.texts(work, manifest)
        if not texts:
            return NOT_CALIBRATED
        rounding, origin = Rounding(scheme, matrices), recipe.choices.text.origin
        with disk_errors(work):
            return calibrate_layers(recipe.original, texts, origin, rounding, partial(progress, "calibrate"))
