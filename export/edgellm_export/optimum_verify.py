"""A package of optimum's graphs, through the public API, beside the checkpoint in torch."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from edgellm.manifest import Manifest
from edgellm_export import encoder_decoder_verify, encoder_verify, verify
from edgellm_export.encoder_decoder_run import Pair
from edgellm_export.optimum import Original
from edgellm_export.report import Report, thresholds
from edgellm_export.steps import Progress, QualityReport
from edgellm_export.verify import Texts, compared, quality_of, read_slice, write_slices


def verify_package(package: Path, manifest: Manifest, checkpoint: Path, progress: Progress) -> QualityReport:
    """Score the package in `package` and compare it with `checkpoint`. Holds one of them at a time."""
    if manifest.encoder is not None:
        scored = encoder_verify.score_package(package, manifest, progress)
        original = Original(checkpoint, manifest.task)
        expected = [original.outputs(encoding) for encoding in scored.sequences]
        progress("original", 1, 1)
        return encoder_verify.report_of(manifest, scored, expected)
    with tempfile.TemporaryFile(dir=package) as ours, tempfile.TemporaryFile(dir=package) as theirs:
        texts, sources = _score_package(package, manifest, ours, progress)
        rows = _score_original(Original(checkpoint, manifest.task), texts, sources, theirs, progress)
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


def _score_package(
    package: Path, manifest: Manifest, scratch: IO[bytes], progress: Progress
) -> tuple[Texts, Sequence[Pair] | None]:
    """The texts, and the pairs that they are targets of where the model has sources."""
    if manifest.task == "text-generation":
        return verify.score_package(package, manifest, scratch, progress), None
    pairs, texts = encoder_decoder_verify.score_package(package, manifest, scratch, progress)
    return texts, pairs


def _score_original(
    original: Original, texts: Texts, pairs: Sequence[Pair] | None, scratch: IO[bytes], progress: Progress
) -> int:
    """Its logits go to `scratch`. Returns the rows in all."""
    rows, done = sum(map(len, texts.sequences)), 0
    for number, sequence in enumerate(texts.sequences):
        source = None if pairs is None else pairs[number].source
        write_slices(scratch, rows, done, original.logits(sequence, source))
        done += len(sequence)
        progress("original", done, rows)
    return rows
