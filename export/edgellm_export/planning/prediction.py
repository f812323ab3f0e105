"""What an export will write and the memory that it takes, from an outline of the package; and beside that, what
happened."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgellm.inspection.footprint import Footprint, footprint
from edgellm.inspection.graph_summary import summarize
from edgellm.inspection.graph_weights import stored_weights
from edgellm.package.files import write_manifest
from edgellm.package.layouts import INTEGERS
from edgellm.package.manifest import MANIFEST_NAME, EncoderFacts, FileEntry, Manifest
from edgellm.package.report import REPORT_NAME, ExportOutcome, Foreseen
from edgellm.system.memory import peak_memory_bytes
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.exporters.contract import ForeseenExporter, Outline
from edgellm_export.package.side_files import write_side_files
from edgellm_export.planning.work_memory import Work, peaks, scratch
from edgellm_export.planning.work_time import measured_speed, seconds

# Of report.json: what every one has, and for each layer and matrix.
REPORT, REPORT_LAYER, REPORT_MATRIX = 1500, 75, 180
CONTEXT = 2048  # tokens, or what the model has: for which the package's own memory is estimated


@dataclass(frozen=True)
class Prediction:
    """What an export writes and takes: `files` are bytes by name, `scratch` those that lie beside them for a while,
    `peaks` bytes of its process by step, of which it had `base` before. `package` is what running the result takes; a
    decoding step of it reads `read_per_token` bytes of weights, with a graph of `nodes`."""

    manifest: Manifest
    files: Mapping[str, int]
    scratch: int
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
            scratch=scratch(of_export),
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
        matrices = len(outline.projections) if outline.manifest.weights.precision in INTEGERS else 0
        sizes[REPORT_NAME] = REPORT + REPORT_LAYER * layers + REPORT_MATRIX * matrices
    entries = {name: FileEntry(size, "0" * 64) for name, size in sizes.items()}
    manifest = Manifest.from_dict({**outline.manifest.to_dict(), "files": {n: vars(e) for n, e in entries.items()}})
    write_manifest(work, manifest)
    return dict(sorted({**sizes, MANIFEST_NAME: (work / MANIFEST_NAME).stat().st_size}.items()))


@dataclass(frozen=True)
class Watch:
    """Sees what an export takes; it begins before the work. `prediction` is None where nothing was foreseen,
    `peak_before`, in bytes, where the system does not say."""

    prediction: Prediction | None
    peak_before: int | None
    started: float

    @classmethod
    def start(cls, prediction: Prediction | None) -> Watch:
        return cls(prediction, peak_memory_bytes(), time.perf_counter())

    def stop(self, package: Path) -> ExportOutcome | None:
        """The outcome, asked when all but report and manifest are final in the directory `package`; None where nothing
        was foreseen."""
        foreseen, duration = self.prediction, time.perf_counter() - self.started
        if foreseen is None:
            return None
        peak = peak_memory_bytes()
        grown = peak is not None and self.peak_before is not None and peak > self.peak_before
        return ExportOutcome(
            size_bytes=Foreseen(foreseen.size, _size_of(package, foreseen)),
            peak_memory_bytes=Foreseen(foreseen.peak, peak if grown else None),
            seconds=Foreseen(seconds(foreseen.work, foreseen.size, measured_speed()), duration),
        )


def _size_of(package: Path, foreseen: Prediction) -> int:
    """The package's bytes, with those foreseen for the manifest and the report, which are not there yet."""
    files = {p.relative_to(package).as_posix(): p for p in package.rglob("*") if p.is_file()}
    later = {name: count for name, count in foreseen.files.items() if name in (MANIFEST_NAME, REPORT_NAME)}
    return sum(path.stat().st_size for name, path in files.items() if name not in later) + sum(later.values())
