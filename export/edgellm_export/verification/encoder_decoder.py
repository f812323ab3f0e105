"""An encoder-decoder package, through the public API, beside a streamed float run of the same builder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from edgellm.loading import load_as
from edgellm.models.encoder_decoder import EncoderDecoderModel
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.package.report import GenerationReport, LayerReport
from edgellm.types import FloatArray, Progress, TokenArray
from edgellm_export.calibration.rounding import Calibration
from edgellm_export.calibration.texts import evaluation_tokens
from edgellm_export.float_run.encoder_decoder import EncoderDecoderRun, PackageParts, Pair
from edgellm_export.verification.decoder import (
    LOGITS_ON_DISK,
    Texts,
    check_numbers,
    compared,
    device_for,
    quality_of,
    write_slices,
)
from edgellm_export.verification.report import matrix_reports, thresholds

LENGTH, COUNT = 64, 768  # tokens of a source and its target; of all targets
GREEDY, GREEDY_TOKENS = 8, 32  # sources that are also generated from, and how far

PROCESSORS = (
    "repetition_penalty",
    "no_repeat_ngram_size",
    "bad_words_ids",
    "min_length",
    "min_new_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
)


def verify(
    package: Path,
    manifest: Manifest[EncoderDecoderFacts],
    run: EncoderDecoderRun,
    written: PackageParts,
    calibration: Calibration,
    progress: Progress,
) -> GenerationReport:
    """Score the package in `package` and compare it with the float model `run`. Holds one of them at a time."""
    with tempfile.TemporaryFile(dir=package) as scratch:
        pairs, texts = score_package(package, manifest, scratch, progress)
        hidden, layers = _score_original(run, written, pairs, progress)
        comparison = compared(texts, scratch, manifest.vocab_size, partial(run.logits, hidden), progress)
    precision = manifest.weights.precision
    return GenerationReport(
        precision=precision,
        scheme=manifest.weights.scheme,
        cache=manifest.model.cache.dtype,
        calibration=calibration.text,
        size_bytes=sum(entry.size for name, entry in manifest.files.items() if ".onnx" in name),
        quality=quality_of(texts, comparison),
        layers=tuple(layers),
        matrices=matrix_reports(calibration),
        thresholds=thresholds(precision, manifest.model.cache.dtype),
    )


def pairs_of(sequences: Sequence[TokenArray], manifest: Manifest, longest_target: int) -> list[Pair]:
    """Each sequence as a source, closed as tokenizers close it, and as its own target: the decoder then looks across
    where it writes."""
    start = manifest.tokens.decoder_start or 0
    end = list(manifest.tokens.eos[:1])
    return [
        Pair(np.append(s, end).astype(np.int64), np.append(start, s[: longest_target - 1]).astype(np.int64))
        for s in sequences
    ]


def pair_length(manifest: Manifest[EncoderDecoderFacts], wanted: int) -> int:
    """Tokens of text that fit into a source and a target."""
    return max(2, min(wanted, (manifest.model.source_length or wanted + 1) - 1, manifest.context_length - 1))


def score_package(
    package: Path, manifest: Manifest[EncoderDecoderFacts], scratch: IO[bytes], progress: Progress
) -> tuple[list[Pair], Texts]:
    """Run the package as a user would; its logits go to `scratch`, slice by slice of the vocabulary."""
    model = load_as(EncoderDecoderModel, package, device=device_for(manifest))
    length = pair_length(manifest, LENGTH)
    count = max(length, min(COUNT, LOGITS_ON_DISK // manifest.vocab_size - GREEDY * (GREEDY_TOKENS + 1)))
    sequences, origin = evaluation_tokens(model.tokenizer, manifest.vocab_size, length, count)
    pairs = pairs_of(sequences, manifest, length + 1)
    check_numbers(model.logits(pairs[0].source, pairs[0].target), manifest)
    greedy = [_continued(model, pair, min(GREEDY_TOKENS, manifest.context_length - 1)) for pair in pairs[:GREEDY]]
    scored = [*pairs, *greedy]
    rows, done = sum(len(pair.target) for pair in scored), 0
    for pair in scored:
        write_slices(scratch, rows, done, model.logits(pair.source, pair.target))
        done += len(pair.target)
        progress("package", done, rows)
    texts = Texts([pair.target for pair in scored], len(pairs), origin, model.info.device, prompt=1)
    return scored, texts


def _continued(model: EncoderDecoderModel, pair: Pair, count: int) -> Pair:
    """The source with what the package makes of it. Plain greedy search, whatever generation_config.json says."""
    off = dict.fromkeys(PROCESSORS)
    result = model.generate(pair.source, max_new_tokens=count, do_sample=False, num_beams=1, **off)
    return Pair(pair.source, np.append(pair.target[:1], result.tokens).astype(np.int64))


def _score_original(
    run: EncoderDecoderRun, written: PackageParts, pairs: Sequence[Pair], progress: Progress
) -> tuple[FloatArray, list[LayerReport]]:
    """Normed hidden states of all target tokens, and the error of each of the package's layers on the first pair."""
    reports: list[LayerReport] = []
    count, layers = run.architecture.source_layers, run.architecture.shape.num_layers
    states = run.embed_sources(pairs)
    for index in range(count):
        outputs, _ = run.source_layer(index, pairs, states)
        error = written.source_error(index, pairs[0], states[0], outputs[0])
        reports.append(LayerReport(index, error, "encoder"))
        states = outputs
        progress("original", index + 1, count + layers)
    encoded = run.encoded(states)
    states = run.embed_targets(pairs)
    for index in range(layers):
        outputs, _ = run.layer(index, pairs, states, encoded)
        error = written.error(index, pairs[0], states[0], encoded[0], outputs[0])
        reports.append(LayerReport(index, error, "decoder"))
        states = outputs
        progress("original", count + index + 1, count + layers)
    return run.normed(states), reports
