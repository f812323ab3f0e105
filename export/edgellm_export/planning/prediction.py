"""What an export will write and the memory that it takes, from an outline of the package."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgellm.inspection.footprint import Footprint, footprint
from edgellm.inspection.graph_summary import summarize
from edgellm.inspection.graph_weights import stored_weights
from edgellm.package.files import write_manifest
from edgellm.package.manifest import EncoderFacts, FileEntry, Manifest
from edgellm.package.report import REPORT_NAME
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.exporters.contract import ForeseenExporter, Outline
from edgellm_export.package.side_files import write_side_files
from edgellm_export.planning.work_memory import Work, peaks

# Of report.json: what every one has, and for each layer and matrix.
REPORT, REPORT_LAYER, REPORT_MATRIX = 1500, 75, 150
CONTEXT = 2048  # tokens, or what the model has: for which the package's own memory is estimated


@dataclass(frozen=True)
class Prediction:
    """What an export writes and takes: `files` are bytes by name, `peaks` bytes of its process by step, of which it had
    `base` before. `package` is what running the result takes; a decoding step of it reads `read_per_token` bytes of
    weights, with a graph of `nodes`."""

    manifest: Manifest
    files: Mapping[str, int]
    base: int
    peaks: Mapping[str, int]
    package: Footprint
    read_per_token: int
    nodes: int
    work: Work

    @property
    def size(self) -> int:
        return sum(self.files.values())

    @property
    def peak(self) -> int:
        return max(self.peaks.values())


def predict(
    exporter: ForeseenExporter, checkpoint: Checkpoint, *, verify: bool, base: int, directory: Path | None = None
) -> Prediction:
    """Foresee an export without reading weights, writing only into a temporary directory in `directory`. `base`: bytes
    that this process takes now."""
    with tempfile.TemporaryDirectory(prefix="plan-", dir=directory) as made:
        work = Path(made)
        write_side_files(work, checkpoint)
        outline = exporter.outline(work)
        manifest = outline.manifest
        package = footprint(work, manifest, min(CONTEXT, manifest.context_length))
        decoder = work / manifest.graphs["decoder" if "decoder" in manifest.graphs else "model"].file
        of_export = Work.of(outline, package, verifies=verify)
        return Prediction(
            manifest=manifest,
            files=_files(work, outline, of_export),
            base=base,
            peaks=peaks(of_export, base),
            package=package,
            read_per_token=sum(weight.bytes_per_step for weight in stored_weights(decoder).values()),
            nodes=summarize(decoder).nodes,
            work=of_export,
        )


def _files(work: Path, outline: Outline, of_export: Work) -> dict[str, int]:
    sizes = {path.relative_to(work).as_posix(): path.stat().st_size for path in work.rglob("*") if path.is_file()}
    if of_export.verifies:
        facts = outline.manifest.model
        layers = 0 if isinstance(facts, EncoderFacts) else facts.cache.num_layers
        matrices = len(of_export.matrices) if of_export.calibrates else 0
        sizes[REPORT_NAME] = REPORT + REPORT_LAYER * layers + REPORT_MATRIX * matrices
    entries = {name: FileEntry(size, "0" * 64) for name, size in sizes.items()}
    manifest = Manifest.from_dict({**outline.manifest.to_dict(), "files": {n: vars(e) for n, e in entries.items()}})
    write_manifest(work, manifest)
    return dict(sorted({**sizes, "edgellm.json": (work / "edgellm.json").stat().st_size}.items()))
