"""What comparing models that generate shares: a package's logits on disk, beside the original's a slice of the
vocabulary at a time, and what is reported of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Literal

import numpy as np

from edgellm.errors import ProviderError, QualityGateError
from edgellm.ort.library import choose_device
from edgellm.package.manifest import DecoderFacts, EncoderDecoderFacts, Manifest
from edgellm.package.report import GenerationQuality, GenerationReport, LayerReport
from edgellm.types import FloatArray, Progress, ProgressHook, TokenArray
from edgellm_export.float_run.divergence import SLICE, Comparison
from edgellm_export.verification.report import thresholds

GenerationManifest = Manifest[DecoderFacts] | Manifest[EncoderDecoderFacts]


@dataclass(frozen=True)
class ScoredTexts:
    """`sequences`: what is scored. The first `greedy_from` are text; the others are greedy continuations by the
    package of their first `prompt` tokens."""

    sequences: Sequence[TokenArray]
    greedy_from: int
    origin: str
    device: str
    prompt: int


def report_of(
    manifest: GenerationManifest,
    texts: ScoredTexts,
    comparison: Comparison,
    layers: Sequence[LayerReport] = (),
) -> GenerationReport:
    """`layers`: where their errors are known."""
    precision, cache = manifest.weights.precision, manifest.model.cache.dtype
    return GenerationReport(
        precision=precision,
        scheme=manifest.weights.scheme,
        cache=cache,
        size_bytes=sum(entry.size for name, entry in manifest.files.items() if ".onnx" in name),
        quality=quality_of(texts, comparison),
        layers=tuple(layers),
        thresholds=thresholds(precision, cache),
    )


def compared(
    texts: ScoredTexts, scratch: IO[bytes], vocab: int, original: Callable[[int, int], FloatArray], progress: Progress
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


def device_for(manifest: Manifest) -> Literal["cpu", "cuda"]:
    """What the package was made for, or else the CPU: slow for a CUDA package, but its numbers can be compared."""
    try:
        return choose_device("auto", manifest.target)
    except ProviderError:
        return "cpu"


def check_numbers(outputs: Iterable[FloatArray], manifest: Manifest) -> None:
    """Raises QualityGateError where not all are numbers."""
    if not all(np.isfinite(array).all() for array in outputs):
        raise QualityGateError(
            f"the {manifest.weights.precision} package computes values that are not numbers (NaN or infinity): the "
            "checkpoint's weights are damaged, or too large for this precision; check them, or export as fp32"
        )


def write_logits(
    scratch: IO[bytes], texts: Sequence[TokenArray], logits: Iterable[FloatArray], progress: ProgressHook
) -> int:
    """Put the logits of the texts, pieces [some tokens, vocab] one behind the other, into `scratch`, slice by slice of
    the vocabulary. Returns how many rows there are in all."""
    rows, done = sum(map(len, texts)), 0
    for piece in logits:
        write_slices(scratch, rows, done, piece)
        done += len(piece)
        progress(done, rows)
    return rows


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


def quality_of(texts: ScoredTexts, comparison: Comparison) -> GenerationQuality:
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


def _greedy_agreement(texts: ScoredTexts, comparison: Comparison) -> tuple[int, int]:
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
