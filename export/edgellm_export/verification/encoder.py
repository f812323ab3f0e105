"""Runtime against reference for encoders: the package's outputs, through the public API, beside a float run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from edgellm.loading import load_as
from edgellm.models.encoder import EncoderModel
from edgellm.package.manifest import EncoderFacts, Manifest
from edgellm.package.report import EncoderQuality, EncoderReport, LayerReport
from edgellm.system.memory import return_freed_memory
from edgellm.text.encodings import Encoding
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import BoolArray, FloatArray, Progress
from edgellm_export.calibration.encoder_texts import paragraphs, random_tokens
from edgellm_export.calibration.texts import EVALUATION_TOPICS, topics
from edgellm_export.float_run.encoder import EncoderRun, Outputs
from edgellm_export.verification.generation import check_numbers
from edgellm_export.verification.layers import WrittenPackage, original_states
from edgellm_export.verification.report import ENCODER_THRESHOLDS

LENGTH, TOKENS = 128, 2048  # of each text, and of all, about
LEAST, MANY = 1024, 1 << 26  # a large vocabulary has fewer tokens of text: about so many numbers, but no fewer tokens
RUN, COMPARED = 1 << 24, 1 << 20  # numbers that the package gives, and that are compared, at a time


@dataclass(frozen=True)
class Scored:
    """The texts that a package on `device` read, which are `origin`, and the names of what it gave for each."""

    sequences: Sequence[Encoding]
    origin: str
    device: str
    outputs: Sequence[str]


def verify_encoder(written: WrittenPackage[EncoderFacts], run: EncoderRun, progress: Progress) -> EncoderReport:
    """Run the package as a user would and compare it with the float model `run`."""
    manifest = written.manifest
    with tempfile.TemporaryFile(dir=written.path) as scratch:
        scored = score_package(written.path, manifest, scratch, progress)
        return_freed_memory()  # the package's, before the original takes as much
        states, layers = original_states(run, written.layers, scored.sequences, progress)
        quality = quality_of(manifest, scored, scratch, run.outputs(scored.sequences, states))
    return report_of(manifest, quality, layers)


def score_package(package: Path, manifest: Manifest[EncoderFacts], scratch: IO[bytes], progress: Progress) -> Scored:
    """Run the package; what it gives for the texts goes to `scratch`, one behind the other. Raises QualityGateError
    where its outputs are not numbers."""
    model = load_as(EncoderModel, package)
    sequences, origin = evaluation_texts(model.tokenizer, manifest)
    for part in _parts(sequences, RUN // manifest.vocab_size if manifest.task == "fill-mask" else TOKENS):
        for outputs in _found(model, part):
            check_numbers(outputs.values(), manifest)
            for array in outputs.values():
                np.save(scratch, array)
    progress("package", 1, 1)
    return Scored(sequences, origin, model.info.device, list(outputs))


def _parts(sequences: Sequence[Encoding], most: int) -> Iterator[list[Encoding]]:
    """The texts in turn, in parts of `most` tokens or a single text."""
    part: list[Encoding] = []
    for sequence in sequences:
        if part and sum(map(len, part)) + len(sequence) > most:
            yield part
            part = []
        part.append(sequence)
    yield part


def _found(model: EncoderModel, sequences: Sequence[Encoding]) -> list[Outputs]:
    if model.manifest.model.embedding is not None:
        return [{"sentence_embedding": vector} for vector in model.embed(sequences, normalize=False)]
    return [dict(result.outputs) for result in model.run(sequences)]


def report_of(
    manifest: Manifest[EncoderFacts], quality: EncoderQuality, layers: Sequence[LayerReport] = ()
) -> EncoderReport:
    """`layers`: where their errors are known."""
    precision = manifest.weights.precision
    return EncoderReport(
        precision=precision,
        scheme=manifest.weights.scheme,
        size_bytes=sum(entry.size for name, entry in manifest.files.items() if name.startswith("model.onnx")),
        quality=quality,
        layers=tuple(layers),
        thresholds=ENCODER_THRESHOLDS[precision],
    )


def evaluation_texts(tokenizer: Tokenizer | None, manifest: Manifest[EncoderFacts]) -> tuple[list[Encoding], str]:
    """What a package is compared with its original on, and what that is."""
    embedding = manifest.model.embedding
    length = min(LENGTH, manifest.context_length if embedding is None else embedding.max_tokens)
    count = max(length, compared_tokens(manifest))
    if tokenizer is not None:
        found = paragraphs(topics(EVALUATION_TOPICS), tokenizer, manifest.vocab_size, length, count)
        if found:
            return found, "English text"
    return random_tokens(manifest.vocab_size, length, count), "random tokens"


def compared_tokens(manifest: Manifest) -> int:
    """Tokens of all texts, about."""
    return max(LEAST, min(TOKENS, MANY // manifest.vocab_size)) if manifest.task == "fill-mask" else TOKENS


@dataclass
class _Closeness:
    """How close rows of numbers are to those they should be; grows row by row."""

    squares: float = 0.0
    size: float = 0.0
    cosines: list[FloatArray] = field(default_factory=list)
    agreed: list[BoolArray] = field(default_factory=list)

    def add(self, found: FloatArray, expected: FloatArray) -> None:
        """[rows, numbers] both."""
        rows = max(1, COMPARED // max(1, expected.shape[1]))
        for at in range(0, len(expected), rows):
            a, b = found[at : at + rows], expected[at : at + rows]
            self.squares += float(np.square(a - b, dtype=np.float64).sum())
            self.size += float(np.square(b, dtype=np.float64).sum())
            self.cosines.append(cosine(a, b))
            self.agreed.append(a.argmax(axis=-1) == b.argmax(axis=-1))

    @property
    def error(self) -> float:
        return float((self.squares / max(self.size, 1e-30)) ** 0.5)


def quality_of(
    manifest: Manifest[EncoderFacts], scored: Scored, scratch: IO[bytes], original: Iterable[Outputs]
) -> EncoderQuality:
    """What the package gave, in `scratch`, beside what the `original` gives for each of the texts."""
    closeness, names = _Closeness(), [""]
    scratch.seek(0)
    for expected in original:
        found = {name: np.load(scratch) for name in scored.outputs}
        names = [name for name in expected if name in found]
        for name in names:
            closeness.add(np.atleast_2d(found[name]), np.atleast_2d(expected[name]))
    counts = manifest.task != "feature-extraction" and len(manifest.model.labels) != 1
    cosines = np.concatenate(closeness.cosines)
    return EncoderQuality(
        texts=len(scored.sequences),
        tokens=sum(map(len, scored.sequences)),
        text=scored.origin,
        device=scored.device,
        output=" and ".join(names),
        error=closeness.error,
        cosine=float(cosines.mean()),
        cosine_min=float(cosines.min()),
        top1_agreement=float(np.concatenate(closeness.agreed).mean()) if counts else None,
    )


def cosine(a: FloatArray, b: FloatArray) -> FloatArray:
    """The cosine of the angle between rows of one number: [rows]."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(axis=-1) / np.maximum(lengths, 1e-30), np.float32)
