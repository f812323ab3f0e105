"""An encoder-decoder package, through the public API, beside a streamed float run of the same builder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np

from edgellm.loading import load_as
from edgellm.models.encoder_decoder import EncoderDecoderModel
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.package.report import GenerationReport
from edgellm.types import Progress, TokenArray
from edgellm_export.calibration.texts import Encoder, evaluation_tokens
from edgellm_export.float_run.encoder_decoder import EncoderDecoderRun, Pair
from edgellm_export.verification import generation
from edgellm_export.verification.generation import ScoredTexts
from edgellm_export.verification.layers import WrittenPackage, original_states

LENGTH, COUNT = 64, 1024  # tokens of a source and its target; of all targets
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
    written: WrittenPackage[EncoderDecoderFacts], run: EncoderDecoderRun, progress: Progress
) -> GenerationReport:
    """Score the package and compare it with the float model `run`. Holds one of them at a time."""
    manifest = written.manifest
    with tempfile.TemporaryFile(dir=written.path) as scratch:
        pairs, texts = score_package(written.path, manifest, scratch, progress)
        states, layers = original_states(run, written.layers, pairs, progress)
        logits = partial(run.logits, run.normed(states))
        comparison = generation.compared(texts, scratch, manifest.vocab_size, logits, progress)
    return generation.report_of(manifest, texts, comparison, layers)


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
) -> tuple[list[Pair], ScoredTexts]:
    """Run the package as a user would; its logits go to `scratch`, slice by slice of the vocabulary."""
    model = load_as(EncoderDecoderModel, package, device=generation.device_for(manifest))
    pairs, origin = evaluation_texts(model.tokenizer, manifest)
    generation.check_numbers([model.logits(pairs[0].source, pairs[0].target)], manifest)
    greedy = [_continued(model, pair, min(GREEDY_TOKENS, manifest.context_length - 1)) for pair in pairs[:GREEDY]]
    scored = [*pairs, *greedy]
    targets = [pair.target for pair in scored]
    logits = chain.from_iterable(model.logits_in_chunks(pair.source, pair.target) for pair in scored)
    generation.write_logits(scratch, targets, logits, partial(progress, "package"))
    return scored, ScoredTexts(targets, len(pairs), origin, model.info.device, prompt=1)


def evaluation_texts(tokenizer: Encoder | None, manifest: Manifest[EncoderDecoderFacts]) -> tuple[list[Pair], str]:
    """What a package is compared with its original on, and what that is."""
    length = pair_length(manifest, LENGTH)
    sequences, origin = evaluation_tokens(tokenizer, manifest.vocab_size, length, COUNT)
    return pairs_of(sequences, manifest, length + 1), origin


def compared_tokens(manifest: Manifest[EncoderDecoderFacts]) -> int:
    """Tokens of all targets, where there is text enough."""
    length = pair_length(manifest, LENGTH)
    return -(-COUNT // length) * (length + 1) + GREEDY * (GREEDY_TOKENS + 1)


def _continued(model: EncoderDecoderModel, pair: Pair, count: int) -> Pair:
    """The source with what the package makes of it. Plain greedy search, whatever generation_config.json says."""
    off = dict.fromkeys(PROCESSORS)
    result = model.generate(pair.source, max_new_tokens=count, do_sample=False, num_beams=1, **off)
    return Pair(pair.source, np.append(pair.target[:1], result.tokens).astype(np.int64))
