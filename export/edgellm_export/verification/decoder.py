"""Runtime against reference: the package's logits, through the public API, beside a streamed float run of the same
builder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Literal

import numpy as np

from edgellm.errors import ProviderError, QualityGateError
from edgellm.loading import load_as
from edgellm.models.decoder import Model
from edgellm.ort.library import choose_device
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.package.report import GenerationQuality, GenerationReport, LayerReport
from edgellm.types import FloatArray, Progress, TokenArray
from edgellm_export.calibration.rounding import Calibration
from edgellm_export.calibration.texts import evaluation_tokens
from edgellm_export.float_run.decoder import FloatRun, PackageLayers
from edgellm_export.verification.divergence import Comparison
from edgellm_export.verification.report import matrix_reports, thresholds

SLICE = 8192  # vocabulary entries compared at a time
LOGITS_ON_DISK = 64 << 20  # float32 values of the package's logits: 256 MiB
LOGITS_IN_MEMORY = 12 << 20  # the same, of one sequence: 48 MiB
PROMPT, CONTINUATION = 16, 32  # tokens of each greedy check


@dataclass(frozen=True)
class Texts:
    """`sequences`: what is scored. The first `greedy_from` are text; the others are greedy continuations by the
    package of their first `prompt` tokens."""

    sequences: Sequence[TokenArray]
    greedy_from: int
    origin: str
    device: str
    prompt: int = PROMPT


def verify(
    package: Path,
    manifest: Manifest[DecoderFacts],
    run: FloatRun,
    written: PackageLayers,
    calibration: Calibration,
    progress: Progress,
) -> GenerationReport:
    """Score the package in `package` and compare it with the float model `run`. Holds one of them at a time."""
    with tempfile.TemporaryFile(dir=package) as scratch:
        texts = score_package(package, manifest, scratch, progress)
        hidden, errors = _score_original(run, written, texts.sequences, progress)
        comparison = compared(texts, scratch, manifest.vocab_size, partial(run.logits, hidden), progress)
    precision, scheme = manifest.weights.precision, manifest.weights.scheme
    return GenerationReport(
        precision=precision,
        scheme=scheme,
        cache=manifest.model.cache.dtype,
        calibration=calibration.text,
        size_bytes=sum(entry.size for name, entry in manifest.files.items() if name.startswith("model.onnx")),
        quality=quality_of(texts, comparison),
        layers=tuple(LayerReport(i, error) for i, error in enumerate(errors)),
        matrices=matrix_reports(calibration),
        thresholds=thresholds(precision, manifest.model.cache.dtype),
    )


def compared(
    texts: Texts, scratch: IO[bytes], vocab: int, original: Callable[[int, int], FloatArray], progress: Progress
) -> Comparison:
    """The package's logits in `scratch` beside `original`(start, stop) [rows, stop - start], a slice of the vocabulary
    at a time."""
    comparison = Comparison(np.concatenate([_targets(s) for s in texts.sequences]))
    rows = sum(map(len, texts.sequences))
    for start in range(0, vocab, SLICE):
        stop = min(start + SLICE, vocab)
        comparison.add(start, original(start, stop), read_slice(scratch, rows, start, stop))
        progress("compare", stop, vocab)
    return comparison


def _score_original(
    run: FloatRun, written: PackageLayers, sequences: Sequence[TokenArray], progress: Progress
) -> tuple[FloatArray, list[float]]:
    """Normed hidden states of all tokens, and the error of each of the package's layers on the first sequence."""
    states, errors = run.embed(sequences), []
    layers = run.architecture.shape.num_layers
    for index in range(layers):
        outputs = run.layer(index, sequences, states)
        errors.append(written.error(index, sequences[0], states[0], outputs[0]))
        states = outputs
        progress("original", index + 1, layers)
    return run.normed(states), errors


def score_package(package: Path, manifest: Manifest, scratch: IO[bytes], progress: Progress) -> Texts:
    """Run the package as a user would; its logits go to `scratch`, slice by slice of the vocabulary."""
    model = load_as(Model, package, device=device_for(manifest))
    longest = min(256, manifest.context_length, max(2, LOGITS_IN_MEMORY // manifest.vocab_size))
    count = max(longest, min(1024, LOGITS_ON_DISK // manifest.vocab_size - 4 * (PROMPT + CONTINUATION)))
    texts, origin = evaluation_tokens(model.tokenizer, manifest.vocab_size, longest, count)
    check_numbers(model.logits(texts[0][:PROMPT]), manifest)
    room = min(CONTINUATION, manifest.context_length - PROMPT)
    greedy = [_continue(model, text[:PROMPT], room) for text in texts[:4] if len(text) >= PROMPT and room > 0]
    sequences = [*texts, *greedy]
    rows, done = sum(map(len, sequences)), 0
    for sequence in sequences:
        write_slices(scratch, rows, done, model.logits(sequence))
        done += len(sequence)
        progress("package", done, rows)
    device = model.info.device
    del model
    return Texts(sequences, len(texts), origin, device)


def device_for(manifest: Manifest) -> Literal["cpu", "cuda"]:
    """What the package was made for, or else the CPU: slow for a CUDA package, but its numbers can be compared."""
    try:
        return choose_device("auto", manifest.target)
    except ProviderError:
        return "cpu"


def check_numbers(logits: FloatArray, manifest: Manifest) -> None:
    """Raises QualityGateError where not all are numbers."""
    if not np.isfinite(logits).all():
        raise QualityGateError(
            f"the {manifest.weights.precision} package computes values that are not numbers (NaN or infinity): the "
            "checkpoint's weights are damaged, or too large for this precision; check them, or export as fp32"
        )


def _continue(model: Model, prompt: TokenArray, count: int) -> TokenArray:
    result = model.generate(prompt, max_new_tokens=count, do_sample=False, num_beams=1, min_new_tokens=0)
    return np.concatenate([prompt, np.array(result.tokens, np.int64)])


def write_slices(scratch: IO[bytes], rows: int, first: int, logits: FloatArray) -> None:
    """Layout: for each slice of the vocabulary, [rows, slice] float32."""
    for start in range(0, logits.shape[1], SLICE):
        part = np.ascontiguousarray(logits[:, start : start + SLICE])
        scratch.seek(4 * (rows * start + first * part.shape[1]))
        scratch.write(part.tobytes())


def read_slice(scratch: IO[bytes], rows: int, start: int, stop: int) -> FloatArray:
    scratch.seek(4 * rows * start)
    return np.frombuffer(scratch.read(4 * rows * (stop - start)), np.float32).reshape(rows, stop - start)


def _targets(sequence: TokenArray) -> TokenArray:
    return np.append(sequence[1:], -1)


def quality_of(texts: Texts, comparison: Comparison) -> GenerationQuality:
    lengths = [len(s) for s in texts.sequences]
    scored = sum(lengths[: texts.greedy_from])
    divergence, agreement = comparison.kl_divergence()[:scored], comparison.agreement()[:scored]
    agreed, greedy = _greedy_agreement(texts, comparison)
    original, package = _text_only(comparison, scored).perplexity()
    return GenerationQuality(
        tokens=scored,
        text=texts.origin,
        device=texts.device,
        kl_divergence=float(divergence.mean()),
        kl_divergence_max=float(divergence.max()),
        top1_agreement=float(agreement.mean()),
        perplexity_original=original,
        perplexity_package=package,
        greedy_tokens=greedy,
        greedy_agreement=agreed / greedy if greedy else 1.0,
    )


def _text_only(comparison: Comparison, rows: int) -> Comparison:
    comparison.targets[rows:] = -1
    return comparison


def _greedy_agreement(texts: Texts, comparison: Comparison) -> tuple[int, int]:
    """Tokens up to the first at which the original would have chosen another, and tokens in all, over all
    continuations."""
    agreed = total = 0
    offset = sum(len(s) for s in texts.sequences[: texts.greedy_from])
    for sequence in texts.sequences[texts.greedy_from :]:
        wanted = comparison.choice[0][offset + texts.prompt - 1 : offset + len(sequence) - 1]
        same = wanted == sequence[texts.prompt :]
        agreed += len(same) if same.all() else int(same.argmin())
        total += len(same)
        offset += len(sequence)
    return agreed, total
