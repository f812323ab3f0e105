"""An export from start to end: the steps in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import ExportError, QualityGateError, TensorError
from edgellm.manifest import Manifest, Precision, Target
from edgellm_export.architectures import Architecture, open_architecture
from edgellm_export.checkpoint import IGNORED, Checkpoint, TensorReader, open_checkpoint
from edgellm_export.decoder_graph import build_decoder
from edgellm_export.names import canonical
from edgellm_export.output import check_target, new_directory
from edgellm_export.package import GRAPH, make_manifest, seal, write_side_files
from edgellm_export.quantize import scheme_for
from edgellm_export.report import Report
from edgellm_export.verify import verify
from edgellm_export.writer import write_graph

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Exported:
    """Where the package is, what it says of itself, and how close it is to the original (None: not verified)."""

    path: Path
    manifest: Manifest
    report: Report | None


def export(
    source: str | Path,
    out: str | Path,
    *,
    precision: Precision = "int8",
    target: Target = "cpu",
    revision: str | None = None,
    force: bool = False,
    keep_failed: bool = False,
    verify_quality: bool = True,
    progress: Progress | None = None,
) -> Exported:
    """Export the checkpoint `source` (directory, hub id or .gguf file) to the package directory `out`.

    The result is compared with the float model on built-in text; further away than its precision allows, it raises
    QualityGateError and nothing is kept, unless `keep_failed` (then it stays as `out`.failed). A CUDA package is
    compared on the CPU where there is no CUDA: slower, the same numbers. `progress` is called with (step name, done,
    total). Until the last step succeeds, `out` is as it was. Raises CheckpointError or ExportError.
    """
    out, failed = Path(out), Path(f"{out}.failed") if keep_failed else None
    _check_combination(precision, target)
    check_target(out, force=force)
    if failed is not None:
        check_target(failed, force=True)
    checkpoint = canonical(open_checkpoint(str(source), revision=revision))
    _check_layers(checkpoint)
    with _memory_errors():
        architecture = open_architecture(checkpoint.config)
    report_progress = progress or (lambda step, done, total: None)

    def keep(error: BaseException) -> Path | None:
        return failed if isinstance(error, QualityGateError) else None

    with _memory_errors(), new_directory(out, force=force, keep=keep) as work:
        manifest, offsets = _write(work, checkpoint, architecture, precision, target, report_progress)
        report = verify(work, checkpoint, architecture, manifest, offsets, report_progress) if verify_quality else None
        if report is not None:
            report.write(work)
            manifest = seal(work, manifest)
            report.gate(failed)
    return Exported(out, manifest, report)


def _write(
    work: Path,
    checkpoint: Checkpoint,
    architecture: Architecture,
    precision: Precision,
    target: Target,
    progress: Progress,
) -> tuple[Manifest, dict[str, int]]:
    """Graph, weights and side files of the package. Returns the manifest with their hashes, and where each weight
    is."""
    scheme = scheme_for(precision, target)
    tied_head = ("lm_head.weight",) if architecture.shape.tied_embedding else ()
    tensors = TensorReader(checkpoint.tensors, ignore=(*IGNORED, *tied_head))
    built = build_decoder(architecture, tensors, scheme)
    tensors.finish()
    offsets = write_graph(built, work / GRAPH, progress=lambda done, total: progress("weights", done, total))
    manifest = make_manifest(checkpoint, architecture, scheme, precision, target)
    write_side_files(work, checkpoint, manifest)
    return seal(work, manifest), offsets


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise ExportError(
            f"the export needs more memory than there is ({error or 'no size given'}); "
            "check the sizes in the model's config, or export on a larger machine"
        ) from error


def _check_layers(checkpoint: Checkpoint) -> None:
    """Each layer has tensors; a number beyond reason would keep the graph builder busy for ever."""
    tensors = len(checkpoint.tensors)
    for key in ("num_hidden_layers", "n_layer"):
        layers = checkpoint.config.get(key)
        if isinstance(layers, int) and layers > tensors:
            raise TensorError(
                f"config.json: {key} is {layers}, and the checkpoint has only {tensors} tensors; "
                "check that config.json and the weights belong together"
            )


def _check_combination(precision: str, target: Target) -> None:
    if target == "cuda" and precision == "fp32":
        raise ExportError(
            "CUDA's attention kernel has no float32; export with --precision fp16 for CUDA, or fp32 for the CPU"
        )
