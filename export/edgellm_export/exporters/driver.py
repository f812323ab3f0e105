"""An export's files, and what they are expected to be, in the same steps for all kinds of model."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic

from edgellm.errors import ExportError
from edgellm.package.manifest import Manifest
from edgellm.package.report import Report
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import Progress
from edgellm_export.blocks.build import Material
from edgellm_export.calibration.mixing import mix
from edgellm_export.calibration.rounding import NOT_CALIBRATED, Calibration, Rounding, calibrate_layers
from edgellm_export.checkpoint import TensorReader
from edgellm_export.exporters.contract import Outline, Written
from edgellm_export.exporters.matrices import matrix_reports, quantized_source
from edgellm_export.exporters.recipe import Recipe, Text
from edgellm_export.exporters.storing import store_borrowers, store_graphs
from edgellm_export.float_run.layers import FLOAT, StoredLayers
from edgellm_export.onnx.builder import Projection
from edgellm_export.onnx.writer import outline_graph, write_graph
from edgellm_export.package.output import disk_errors
from edgellm_export.quantize import IntegerScheme, four_bits
from edgellm_export.verification.layers import WrittenPackage
from edgellm_export.verification.report import within

# Bytes of manifest and report, and of what they say of a matrix.
ROOM, ROOM_MATRIX = 8192, 256


@dataclass(frozen=True)
class Driver(Generic[Text]):
    """Implements `contract.ForeseenExporter`."""

    recipe: Recipe[Text]

    def write(self, work: Path, progress: Progress) -> Written:
        recipe = self.recipe
        manifest, tensors = self._described(work), self._accounted()
        cache = recipe.cache(work, manifest, progress)
        with tempfile.TemporaryDirectory(dir=work) as matrices:
            plain = Material(tensors, recipe.scheme, cache=cache)
            calibration = self._calibrated(work, manifest, plain, Path(matrices), progress)
            scheme = recipe.scheme
            if isinstance(scheme, IntegerScheme):
                scheme = replace(scheme, prepared=calibration.prepared)
            material = replace(plain, scheme=scheme, scales=calibration.scales)
            graphs = recipe.graphs(material)
            projections = [each for graph in graphs.values() for each in graph.projections]
            data = store_graphs(graphs, work, write_graph, partial(progress, "weights"))
            store_borrowers(recipe.borrowers(material), work, data)

        def verify(sealed: Manifest[Any]) -> Report:
            report = recipe.verify(WrittenPackage(work, sealed, StoredLayers(material, data)), progress)
            matrices = matrix_reports(projections, scheme)
            source = quantized_source(recipe.checkpoint, projections, scheme)
            report = replace(report, calibration=calibration.text, matrices=matrices, source=source)
            return within(replace(report, mixture=tuple(calibration.mixture)), recipe.choices.budget)

        return Written(manifest, verify)

    def outline(self, work: Path) -> Outline:
        recipe = self.recipe
        manifest, tensors = self._described(work), self._accounted()
        material = Material(tensors, recipe.scheme, cache=recipe.expected_cache())
        return Outline(manifest, self._outlined(work, material), recipe.calibrates)

    def _outlined(self, work: Path, material: Material) -> list[Projection]:
        """Put the graphs and what has their weights' size into `work`. Returns their linear layers."""
        graphs = self.recipe.graphs(material)
        data = store_graphs(graphs, work, outline_graph, lambda done, total: None)
        store_borrowers(self.recipe.borrowers(material), work, data)
        return [each for graph in graphs.values() for each in graph.projections]

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

    def _calibrated(
        self, work: Path, manifest: Manifest[Any], plain: Material, matrices: Path, progress: Progress
    ) -> Calibration:
        """The rounded matrices are files in `matrices`. Nothing where there is nothing to round, or no tokenizer.
        `plain`: what graphs are made of without it."""
        recipe, scheme, choices = self.recipe, plain.scheme, self.recipe.choices
        if not isinstance(scheme, IntegerScheme) or not choices.calibrate:
            return NOT_CALIBRATED
        texts, origin, budget = recipe.texts(work, manifest), choices.text.origin, choices.budget
        if not texts and budget is None:
            return NOT_CALIBRATED
        if not texts:
            raise ExportError(
                "mixed precision is chosen by calibration text, and the checkpoint has no tokenizer that makes tokens "
                "of it; export with the tokenizer's files, or as int8 or int4"
            )
        rounding = Rounding(scheme, matrices)
        with disk_errors(work):
            if budget is None:
                return calibrate_layers(recipe.original, texts, origin, rounding, partial(progress, "calibrate"))
            rest = replace(rounding, scheme=replace(scheme, inner=four_bits(choices.target)))
            measured = recipe.measured(Tokenizer.from_file(work / "tokenizer.json"), manifest)
            size = partial(self._size, work)
            return mix(recipe.original, texts, origin, measured, rounding, rest, budget, plain, size, progress)

    def _size(self, work: Path, material: Material) -> int:
        """About the bytes of the package whose graphs are made of `material`. Leaves nothing in `work`."""
        there = [path for path in work.iterdir() if path.is_file()]
        with tempfile.TemporaryDirectory(dir=work) as made:
            matrices = len(self._outlined(Path(made), material))
            files = {path.name: path.stat().st_size for path in (*there, *Path(made).iterdir())}
        return sum(files.values()) + ROOM + ROOM_MATRIX * matrices
