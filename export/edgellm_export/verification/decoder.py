"""A decoder package, through the public API, beside a streamed float run of the same builder."""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np

from edgellm.loading import load_as
from edgellm.models.decoder import Model
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.package.report import GenerationReport
from edgellm.types import Progress, TokenArray
from edgellm_export.calibration.texts import Encoder, evaluation_tokens
from edgellm_export.float_run.decoder import DecoderRun
from edgellm_export.verification import generation
from edgellm_export.verification.generation import ScoredTexts
from edgellm_export.verification.layers import WrittenPackage, original_states

LENGTH, COUNT = 256, 1024  # tokens of each text, and of all
GREEDY, PROMPT, CONTINUATION = 4, 16, 32  # texts that are also continued; tokens of each such check


def verify(written: WrittenPackage[DecoderFacts], run: DecoderRun, progress: Progress) -> GenerationReport:
    """Score the package and compare it with the float model `run`. Holds one of them at a time."""
    manifest = written.manifest
    with tempfile.TemporaryFile(dir=written.path) as scratch:
        texts = score_package(written.path, manifest, scratch, progress)
        states, layers = original_states(run, written.layers, texts.sequences, progress)
        logits = partial(run.logits, run.normed(states))
        comparison = generation.compared(texts, scratch, manifest.vocab_size, logits, progress)
    return generation.report_of(manifest, texts, comparison, layers)


def score_package(package: Path, manifest: Manifest, scratch: IO[bytes], progress: Progress) -> ScoredTexts:
    """Run the package as a user would; its logits go to `scratch`."""
    model = load_as(Model, package, device=generation.device_for(manifest))
    texts, origin = evaluation_texts(model.tokenizer, manifest)
    generation.check_numbers([model.logits(texts[0][:PROMPT])], manifest)
    room = min(CONTINUATION, manifest.context_length - PROMPT)
    greedy = [_continue(model, text[:PROMPT], room) for text in texts[:GREEDY] if len(text) >= PROMPT and room > 0]
    sequences = [*texts, *greedy]
    logits = chain.from_iterable(map(model.logits_in_chunks, sequences))
    generation.write_logits(scratch, sequences, logits, partial(progress, "package"))
    return ScoredTexts(sequences, len(texts), origin, model.info.device, PROMPT)


def evaluation_texts(tokenizer: Encoder | None, manifest: Manifest) -> tuple[list[TokenArray], str]:
    """What a package is compared with its original on, and what that is."""
    return evaluation_tokens(tokenizer, manifest.vocab_size, text_length(manifest), COUNT)


def text_length(manifest: Manifest) -> int:
    """Tokens of each text."""
    return min(LENGTH, manifest.context_length)


def compared_tokens(manifest: Manifest) -> int:
    """Tokens of text and of continuations, where there is text enough."""
    length = text_length(manifest)
    return -(-COUNT // length) * length + GREEDY * (PROMPT + CONTINUATION)


def _continue(model: Model, prompt: TokenArray, count: int) -> TokenArray:
    result = model.generate(prompt, max_new_tokens=count, do_sample=False, num_beams=1, min_new_tokens=0)
    return np.concatenate([prompt, np.array(result.tokens, np.int64)])
