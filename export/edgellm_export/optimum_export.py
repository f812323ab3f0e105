"""A checkpoint of a family that edgellm does not build: optimum makes its graphs, edgellm stores the weights, compares
the result with the original, and puts a package around it."""

from __future__ import annotations

import importlib.metadata
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import onnx_ir as ir

from edgellm.errors import CheckpointError, ExportError, UnsupportedModelError
from edgellm.foreign import FIRST, LATER, MERGED, read_foreign
from edgellm.manifest import GENERATION_TASKS, Manifest, Task, Weights
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.foreign_weights import save, store_weights
from edgellm_export.optimum import PACKAGES, check_installed, export_graphs, task_of
from edgellm_export.optimum_verify import verify_package
from edgellm_export.output import disk_errors
from edgellm_export.package import versions, write_generation_config
from edgellm_export.steps import Choices, Progress, QualityReport, Written


@dataclass(frozen=True)
class OptimumExport:
    """Implements `steps.Exporter`. `directory`: where the checkpoint lies."""

    checkpoint: Checkpoint
    directory: Path
    task: Task

    def write(self, work: Path, choices: Choices, progress: Progress) -> Written:
        with tempfile.TemporaryDirectory(dir=work) as made, disk_errors(work):
            progress("optimum", 0, 1)
            export_graphs(self.directory, Path(made), self.task)
            progress("optimum", 1, 1)
            for graph in _wanted(Path(made)):
                model = ir.load(graph)
                scheme = store_weights(model, choices.precision, partial(progress, "weights"))
                save(model, work / graph.name)
        _, found = read_foreign(work)
        if found.task != self.task:
            raise UnsupportedModelError(f"the graphs that optimum makes for {self.task} are those of {found.task}")
        if found.task in GENERATION_TASKS:
            write_generation_config(work, self.checkpoint, found.tokens)
        return Written(self._manifest(found, choices, scheme), partial(self._verify, work, progress))

    def _manifest(self, found: Manifest, choices: Choices, scheme: str) -> Manifest:
        made_with = {name: importlib.metadata.version(name) for name in PACKAGES}
        return replace(
            found,
            weights=Weights(choices.precision, scheme, tied_embedding=False),
            files={},
            source=dict(self.checkpoint.source),
            versions={**versions(), **made_with},
        )

    def _verify(self, work: Path, progress: Progress, sealed: Manifest) -> QualityReport:
        return verify_package(work, sealed, self.directory, progress)


def open_optimum(checkpoint: Checkpoint, choices: Choices) -> OptimumExport:
    """Raises MissingDependencyError, UnsupportedModelError, or ExportError for choices that optimum's graphs do not
    have."""
    check_installed()
    if checkpoint.directory is None:
        raise CheckpointError("--via optimum takes a checkpoint directory or a hub id, not a GGUF file")
    if choices.target != "cpu":
        raise ExportError("packages made with --via optimum are for the CPU; leave out --target cuda")
    if choices.kv_cache != "float":
        raise ExportError("packages made with --via optimum have a float key/value cache; leave out --kv-cache int8")
    if choices.text.given:
        raise ExportError("--via optimum rounds weights as they are; leave out --calibration")
    return OptimumExport(checkpoint, checkpoint.directory, choices.task or task_of(checkpoint.config))


def _wanted(directory: Path) -> list[Path]:
    """The graphs that run: of a decoder, the merged one alone where there is one."""
    graphs = {path.stem: path for path in sorted(directory.glob("*.onnx"))}
    if MERGED in graphs:
        return [path for name, path in graphs.items() if name not in (FIRST, LATER)]
    return list(graphs.values())
