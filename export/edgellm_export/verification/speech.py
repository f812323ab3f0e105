"""A package that writes down speech, through the public API, beside a streamed float run of the same builder."""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np

from edgellm.loading import load_as
from edgellm.models.speech import SpeechModel
from edgellm.package.manifest import AudioFeatures, Manifest, SpeechFacts
from edgellm.package.report import GenerationReport
from edgellm.types import FloatArray, Progress
from edgellm_export.calibration.texts import evaluation_tokens
from edgellm_export.float_run.encoder_decoder import Pair, SpeechRun
from edgellm_export.verification import generation
from edgellm_export.verification.generation import ScoredTexts
from edgellm_export.verification.layers import WrittenPackage, original_states

# Recordings, tokens of text for each, and how many of these are also generated from and how far. Few: an encoder reads
# half a minute, whatever is said in it.
RECORDINGS, LENGTH = 3, 220
GREEDY, GREEDY_TOKENS = 2, 32
RAW_SECONDS = 10  # of a recording, where a model reads any length
CYCLES = (110.0, 700.0, 1800.0, 3200.0)  # Hertz, of a voice and its resonances


def verify_speech(written: WrittenPackage[SpeechFacts], run: SpeechRun, progress: Progress) -> GenerationReport:
    """Score the package and compare it with the float model `run`. Holds one of them at a time."""
    manifest = written.manifest
    with tempfile.TemporaryFile(dir=written.path) as scratch:
        pairs, texts = _score_package(written.path, manifest, scratch, progress)
        states, layers = original_states(run, written.layers, pairs, progress)
        logits = partial(run.logits, run.normed(states))
        comparison = generation.compared(texts, scratch, manifest.vocab_size, logits, progress)
    return generation.report_of(manifest, texts, comparison, layers)


def murmur(audio: AudioFeatures, seed: int) -> FloatArray:
    """[samples] float32: syllables of a voice that says nothing, over noise. Not speech, but like it in what a
    spectrogram shows."""
    rng = np.random.default_rng(seed)
    time = np.arange(RAW_SECONDS * audio.sampling_rate if audio.raw else audio.samples) / audio.sampling_rate
    pitch = 1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.2, 1) * time)
    loud = np.maximum(0, np.sin(2 * np.pi * rng.uniform(2, 5) * time)) * (np.sin(2 * np.pi * 0.1 * time) > -0.5)
    voice = sum(
        np.sin(2 * np.pi * hertz * np.cumsum(pitch) / audio.sampling_rate) / n for n, hertz in enumerate(CYCLES, 1)
    )
    return np.asarray(0.2 * loud * voice + 0.002 * rng.standard_normal(len(time)), np.float32)


def compared_tokens(manifest: Manifest[SpeechFacts]) -> int:
    """Tokens of all targets, where there is text enough."""
    return RECORDINGS * (_length(manifest) + 1) + GREEDY * (GREEDY_TOKENS + 1)


def _score_package(
    package: Path, manifest: Manifest[SpeechFacts], scratch: IO[bytes], progress: Progress
) -> tuple[list[Pair], ScoredTexts]:
    """Run the package as a user would; its logits go to `scratch`, slice by slice of the vocabulary."""
    model = load_as(SpeechModel, package, device=generation.device_for(manifest))
    length = _length(manifest)
    sequences, origin = evaluation_tokens(model.tokenizer, manifest.vocab_size, length, RECORDINGS * length)
    start = manifest.tokens.decoder_start or 0
    pairs = [
        Pair(model.features(murmur(manifest.model.audio, seed)), np.append(start, sequence).astype(np.int64))
        for seed, sequence in enumerate(sequences[:RECORDINGS])
    ]
    generation.check_numbers([model.logits(pairs[0].source, pairs[0].target[:2])], manifest)
    greedy = [
        Pair(pair.source, model.continued(pair.source, pair.target[:1], GREEDY_TOKENS)) for pair in pairs[:GREEDY]
    ]
    scored = [*pairs, *greedy]
    targets = [pair.target for pair in scored]
    logits = chain.from_iterable(model.logits_in_chunks(pair.source, pair.target) for pair in scored)
    generation.write_logits(scratch, targets, logits, partial(progress, "package"))
    said = f"{origin} to made-up sounds"
    return scored, ScoredTexts(targets, len(pairs), said, model.info.device, prompt=1)


def _length(manifest: Manifest[SpeechFacts]) -> int:
    return max(2, min(LENGTH, manifest.context_length - 1))
