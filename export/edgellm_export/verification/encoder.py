"""Runtime against reference for encoders: the package's outputs, through the public API, beside a float run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgellm.loading import load_as
from edgellm.models.encoder import EncoderModel
from edgellm.package.manifest import EncoderFacts, Manifest
from edgellm.package.report import EncoderQuality, EncoderReport, LayerReport
from edgellm.system.memory import return_freed_memory
from edgellm.text.encodings import Encoding
from edgellm.types import FloatArray, Progress
from edgellm_export.calibration.encoder_texts import paragraphs, random_tokens
from edgellm_export.calibration.rounding import NOT_CALIBRATED, Calibration
from edgellm_export.calibration.texts import EVALUATION_TOPICS, topics
from edgellm_export.float_run.encoder import EncoderRun, Outputs
from edgellm_export.verification.generation import check_numbers
from edgellm_export.verification.layers import WrittenPackage, original_states
from edgellm_export.verification.report import ENCODER_THRESHOLDS, matrix_reports

LENGTH, TOKENS = 128, 2048  # of each text, and of all, about
LARGE = 1 << 26  # numbers of each model's outputs: 256 MiB


@dataclass(frozen=True)
class Scored:
    """What a package, on `device`, gives for texts, which are `origin`."""

    sequences: Sequence[Encoding]
    origin: str
    device: str
    found: Sequence[Outputs]


def verify_encoder(written: WrittenPackage[EncoderFacts], run: EncoderRun, progress: Progress) -> EncoderReport:
    """Run the package as a user would and compare it with the float model `run`."""
    scored = score_package(written.path, written.manifest, progress)
    return_freed_memory()  # the package's, before the original takes as much
    states, layers = original_states(run, written.layers, scored.sequences, progress)
    expected = run.outputs(scored.sequences, states)
    return report_of(written.manifest, scored, expected, layers, written.calibration)


def score_package(package: Path, manifest: Manifest[EncoderFacts], progress: Progress) -> Scored:
    """What the package gives for the texts. Raises QualityGateError where its outputs are not numbers."""
    model = load_as(EncoderModel, package)
    sequences, origin = _texts(model, manifest)
    device = model.info.device
    found = [dict(result.outputs) for result in model.run(sequences)]
    if manifest.model.embedding is not None:
        found = [{"sentence_embedding": vector} for vector in model.embed(sequences, normalize=False)]
    progress("package", 1, 1)
    for outputs in found:
        check_numbers(outputs.values(), manifest)
    return Scored(sequences, origin, device, found)


def report_of(
    manifest: Manifest[EncoderFacts],
    scored: Scored,
    expected: Sequence[Outputs],
    layers: Sequence[LayerReport] = (),
    calibration: Calibration = NOT_CALIBRATED,
) -> EncoderReport:
    """`expected`: the original's outputs. `layers`: where their errors are known."""
    sequences = scored.sequences
    quality = _quality(sequences, scored.found, expected, manifest)
    precision = manifest.weights.precision
    return EncoderReport(
        precision=precision,
        scheme=manifest.weights.scheme,
        calibration=calibration.text,
        size_bytes=sum(entry.size for name, entry in manifest.files.items() if name.startswith("model.onnx")),
        quality=EncoderQuality(len(sequences), sum(map(len, sequences)), scored.origin, scored.device, *quality),
        layers=tuple(layers),
        matrices=matrix_reports(calibration),
        thresholds=ENCODER_THRESHOLDS[precision],
    )


def _texts(model: EncoderModel, manifest: Manifest[EncoderFacts]) -> tuple[list[Encoding], str]:
    embedding = manifest.model.embedding
    length = min(LENGTH, manifest.context_length if embedding is None else embedding.max_tokens)
    count = max(length, compared_tokens(manifest))
    if model.tokenizer is not None:
        found = paragraphs(topics(EVALUATION_TOPICS), model.tokenizer, manifest.vocab_size, length, count)
        if found:
            return found, "English text"
    return random_tokens(manifest.vocab_size, length, count), "random tokens"


def compared_tokens(manifest: Manifest) -> int:
    """Tokens of all texts, about."""
    return min(TOKENS, LARGE // manifest.vocab_size) if manifest.task == "fill-mask" else TOKENS


def _quality(
    sequences: Sequence[Encoding],
    found: Sequence[Outputs],
    expected: Sequence[Outputs],
    manifest: Manifest[EncoderFacts],
) -> tuple[str, float, float, float, float | None]:
    """Name of the outputs, error, cosine, its minimum, top-1 agreement."""
    names = [name for name in expected[0] if name in found[0]]
    squares = size = 0.0
    cosines: list[FloatArray] = []
    agreed: list[FloatArray] = []
    for ours, theirs in zip(found, expected, strict=True):
        for name in names:
            a, b = np.atleast_2d(ours[name]), np.atleast_2d(theirs[name])
            squares += float(np.square(a - b, dtype=np.float64).sum())
            size += float(np.square(b, dtype=np.float64).sum())
            cosines.append(cosine(a, b))
            agreed.append(a.argmax(axis=-1) == b.argmax(axis=-1))
    counts = manifest.task != "feature-extraction" and len(manifest.model.labels) != 1
    every = np.concatenate(cosines)
    error = (squares / max(size, 1e-30)) ** 0.5
    agreement = float(np.concatenate(agreed).mean()) if counts else None
    return " and ".join(names), error, float(every.mean()), float(every.min()), agreement


def cosine(a: FloatArray, b: FloatArray) -> FloatArray:
    """The cosine of the angle between rows of one number: [rows]."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(axis=-1) / np.maximum(lengths, 1e-30), np.float32)
