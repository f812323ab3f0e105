"""A checkpoint of a family that edgellm does not build: optimum makes its graphs, edgellm stores the weights, compares
the result with the original, and puts a package around it. Graphs that are there already need no optimum."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import onnx_ir as ir

from edgellm.errors import CheckpointError, ExportError, UnsupportedModelError
from edgellm.foreign import is_foreign, read_foreign
from edgellm.foreign.files import CONFIG, ENCODER, FIRST, LATER, MERGED, WHOLE
from edgellm.loading import load
from edgellm.models.encoder import EncoderModel
from edgellm.package.manifest import (
    GENERATION_TASKS,
    MANIFEST_NAME,
    DecoderFacts,
    EncoderFacts,
    Manifest,
    Precision,
    Task,
    Weights,
    is_of,
)
from edgellm.package.sentence import sentence_encoder
from edgellm.package.sentence_steps import BY_TOKEN, MODULES
from edgellm.types import Progress
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.json_file import read_json
from edgellm_export.exporters.contract import Choices, Written
from edgellm_export.optimum.conversion import (
    PACKAGES,
    TorchOriginal,
    check_exported,
    check_installed,
    export_graphs,
    task_of,
)
from edgellm_export.optimum.verify import GraphsOriginal, verify_package
from edgellm_export.optimum.weights import save, store_weights
from edgellm_export.package.genai_config import can_run, genai_config
from edgellm_export.package.output import disk_errors
from edgellm_export.package.side_files import (
    check_generation,
    generation_config,
    versions,
    write_generation_config,
    write_json,
)
from edgellm_export.sources.choice import ORDER, resaving
from edgellm_export.sources.opening import local_path, open_checkpoint
from edgellm_export.tokenizer.files import read_text_files

ANY_LENGTH = 2**31  # tokens: what a text may have shows in the graph, later
NAMES = {"model": WHOLE, "decoder": MERGED, "first": FIRST, "later": LATER, "encoder": ENCODER}


@dataclass(frozen=True)
class OptimumExport:
    """Exports a checkpoint, which lies in `directory`, through optimum's graphs."""

    checkpoint: Checkpoint
    precision: Precision
    directory: Path
    task: Task

    def write(self, work: Path, progress: Progress) -> Written:
        with tempfile.TemporaryDirectory(dir=work) as made, disk_errors(work):
            progress("optimum", 0, 1)
            export_graphs(self.directory, Path(made), self.task)
            progress("optimum", 1, 1)
            apart = _lengths_apart(Path(made))
            scheme = _store(_wanted(Path(made)), work, self.precision, progress)
        _, found = read_foreign(work)
        if found.task != self.task:
            raise UnsupportedModelError(f"the graphs that optimum makes for {self.task} are those of {found.task}")
        made_with = {name: importlib.metadata.version(name) for name in PACKAGES}
        weights = Weights(self.precision, scheme, tied_embedding=False)
        manifest = _describe(work, found, self.checkpoint, weights, made_with, lengths_apart=apart)
        original = partial(TorchOriginal, self.directory, self.task)
        return Written(manifest, lambda sealed: verify_package(work, sealed, original, progress))


@dataclass(frozen=True)
class GraphsExport:
    """Exports graphs in float32 that are there already. `path` is what `edgellm.load` opens."""

    checkpoint: Checkpoint
    precision: Precision
    path: Path

    def write(self, work: Path, progress: Progress) -> Written:
        root, found = read_foreign(self.path)
        graphs = {NAMES[name]: root / graph.file for name, graph in found.graphs.items()}
        with disk_errors(work):
            scheme = _store(graphs, work, self.precision, progress)
        _, found = read_foreign(work)
        weights = Weights(self.precision, scheme, tied_embedding=False)
        apart = _lengths_apart(self.path)
        manifest = _describe(work, found, self.checkpoint, weights, {}, lengths_apart=apart)
        original = partial(GraphsOriginal, self.path)
        return Written(manifest, lambda sealed: verify_package(work, sealed, original, progress))


def open_source(source: str, revision: str | None) -> Checkpoint:
    """A checkpoint directory or hub id, or a directory with graphs in place of weights."""
    path = local_path(source)
    is_known = any((path / name).is_file() for name in (*(file.name for file in ORDER), MANIFEST_NAME))
    if is_known or not is_foreign(path):
        return open_checkpoint(source, revision=revision)
    root, found = read_foreign(path)
    if not (root / CONFIG).is_file() or (is_of(found, DecoderFacts) and found.model.cache.growth == "in_place"):
        raise CheckpointError(
            f"{path} holds graphs of onnxruntime-genai, which run as they are: edgellm.load({str(path)!r}); to export, "
            "give the checkpoint that they were made of"
        )
    origin = {"kind": "onnx", "name": root.resolve().name}
    return Checkpoint(read_json(root / CONFIG), {}, read_text_files(root), origin, path)


def open_optimum(checkpoint: Checkpoint, choices: Choices) -> OptimumExport | GraphsExport:
    """Raises MissingDependencyError, PackageError, CheckpointError, or ExportError for choices that such graphs do not
    have."""
    if checkpoint.directory is None:
        raise CheckpointError("--via optimum takes a checkpoint directory or a hub id, not a GGUF file")
    if "quantized" in checkpoint.source:
        raise CheckpointError(
            "--via optimum takes checkpoints in floating point, this one is quantized "
            f"({checkpoint.source['quantized']}); export the original checkpoint that it was made from"
        )
    if choices.target != "cpu":
        raise ExportError("packages made with --via optimum are for the CPU; leave out --target cuda")
    if choices.kv_cache != "float":
        raise ExportError("packages made with --via optimum have a float key/value cache; leave out --kv-cache int8")
    if choices.text.given:
        raise ExportError("--via optimum rounds weights as they are; leave out --calibration")
    check_generation(checkpoint)
    check_exported(checkpoint.config)
    if checkpoint.source["kind"] == "onnx":
        _check_graphs(checkpoint.directory, choices)
        return GraphsExport(checkpoint, choices.precision, checkpoint.directory)
    if checkpoint.source["format"] == "tensorflow":
        raise CheckpointError(
            f"--via optimum takes weights that PyTorch reads; {resaving(checkpoint.config, ', from_tf=True')} "
            "(transformers 4.57 with tensorflow)"
        )
    sentences = None if choices.task is not None else sentence_encoder(checkpoint.files, ANY_LENGTH)
    if sentences is not None and sentences.dense:
        raise UnsupportedModelError(f"{MODULES} has a step Dense, which graphs of optimum's lack; {BY_TOKEN}")
    check_installed()
    task = "feature-extraction" if sentences is not None else choices.task or task_of(checkpoint.config)
    return OptimumExport(checkpoint, choices.precision, checkpoint.directory, task)


def _check_graphs(path: Path, choices: Choices) -> None:
    _, found = read_foreign(path)
    if found.weights.precision != "fp32":
        raise ExportError(f"the graphs of {path} have {found.weights.precision} weights; give graphs in float32")
    if choices.task not in (None, found.task):
        raise ExportError(f"the graphs of {path} are for {found.task}; leave out --task {choices.task}")


def _store(graphs: Mapping[str, Path], work: Path, precision: Precision, progress: Progress) -> str:
    """Write the graphs by name into `work`. Returns the name of the scheme."""
    for name, path in graphs.items():
        model = ir.load(path)
        scheme = store_weights(model, precision, partial(progress, "weights"))
        save(model, work / f"{name}.onnx")
    return scheme


def _lengths_apart(path: Path) -> bool:
    """Whether padding changes what the float32 graphs of an encoder give, which they are asked, as nothing says so."""
    model = load(path)
    return isinstance(model, EncoderModel) and not model.takes_padding


def _describe(
    work: Path,
    found: Manifest,
    checkpoint: Checkpoint,
    weights: Weights,
    made_with: Mapping[str, str],
    *,
    lengths_apart: bool,
) -> Manifest:
    """The manifest; the configs of a model that generates are written to `work`."""
    if is_of(found, EncoderFacts):
        found = replace(found, model=replace(found.model, lengths_apart=lengths_apart))
    if found.task in GENERATION_TASKS:
        write_generation_config(work, checkpoint)
        if can_run(found):
            content = genai_config(found, checkpoint.config, generation_config(checkpoint))
            write_json(work / "genai_config.json", content)
    source = dict(checkpoint.source)
    return replace(found, weights=weights, files={}, source=source, versions={**versions(), **made_with})


def _wanted(directory: Path) -> dict[str, Path]:
    """The graphs that run: of a decoder, the merged one alone where there is one."""
    graphs = {path.stem: path for path in sorted(directory.glob("*.onnx"))}
    if MERGED in graphs:
        return {name: path for name, path in graphs.items() if name not in (FIRST, LATER)}
    return graphs
