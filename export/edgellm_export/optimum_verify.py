"""A package of optimum's graphs, through the public API, beside the checkpoint in torch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

from edgellm.manifest import Manifest
from edgellm_export.optimum import Original
from edgellm_export.report import Report, thresholds
from edgellm_export.steps import Progress
from edgellm_export.verify import Texts, compared, quality_of, read_slice, score_package, write_slices


def verify(package: Path, manifest: Manifest, checkpoint: Path, progress: Progress) -> Report:
    """Score the package in `package` and compare it with `checkpoint`. Holds one of them at a time."""
    with tempfile.TemporaryFile(dir=package) as ours, tempfile.TemporaryFile(dir=package) as theirs:
        texts = score_package(package, manifest, ours, progress)
        rows = _score_original(Original(checkpoint, manifest.task), texts, theirs, progress)
        comparison = compared(
            texts, ours, manifest.vocab_size, lambda start, stop: read_slice(theirs, rows, start, stop), progress
        )
    precision, cache = manifest.weights.precision, manifest.kv_cache.dtype
    return Report(
        precision=precision,
        scheme=manifest.weights.scheme,
        cache=cache,
        calibration="none",
        size_bytes=sum(entry.size for name, entry in manifest.files.items() if ".onnx" in name),
        quality=quality_of(texts, comparison),
        layers=[],
        matrices=[],
        thresholds=thresholds(precision, cache),
    )


def _score_original(original: Original, texts: Texts, scratch: IO[bytes], progress: Progress) -> int:
    """Its logits go to `scratch`. Returns the rows in all."""
    rows, done = sum(map(len, texts.sequences)), 0
    for sequence in texts.sequences:
        write_slices(scratch, rows, done, original.logits(sequence))
        done += len(sequence)
        progress("original", done, rows)
    return rows
