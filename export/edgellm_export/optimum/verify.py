"""A package of another tool's graphs, through the public API, beside the checkpoint in torch or the graphs as they
were."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Protocol

from edgellm.loading import load
from edgellm.models.decoder import Model
from edgellm.models.encoder import EncoderModel
from edgellm.models.encoder_decoder import EncoderDecoderModel
from edgellm.package.manifest import DecoderFacts, EncoderDecoderFacts, EncoderFacts, Manifest, is_of
from edgellm.package.report import Report
from edgellm.package.sentence import pooled
from edgellm.text.encodings import Encoding
from edgellm.types import FloatArray, Progress, TokenArray
from edgellm_export.verification import decoder as decoder_verify
from edgellm_export.verification import encoder as encoder_verify
from edgellm_export.verification import encoder_decoder as encoder_decoder_verify
from edgellm_export.verification.generation import ScoredTexts, compared, read_slice, report_of, write_logits


class Original(Protocol):
    """The model that a package was made from."""

    def logits(self, tokens: TokenArray, source: TokenArray | None = None) -> FloatArray:
        """Logits [length, vocab] behind each of tokens [length], which are a target where there is a source."""

    def outputs(self, encoding: Encoding) -> Mapping[str, FloatArray]:
        """An encoder's outputs by name, arrays without a batch's dimension."""


class GraphsOriginal:
    """The graphs that a package was made from."""

    def __init__(self, path: Path) -> None:
        self._model = load(path)

    def logits(self, tokens: TokenArray, source: TokenArray | None = None) -> FloatArray:
        if isinstance(self._model, EncoderDecoderModel):
            assert source is not None
            return self._model.logits(source, tokens)
        assert isinstance(self._model, Model)
        return self._model.logits(tokens)

    def outputs(self, encoding: Encoding) -> Mapping[str, FloatArray]:
        assert isinstance(self._model, EncoderModel)
        return self._model.run([encoding])[0].outputs


def verify_package(
    package: Path, manifest: Manifest, open_original: Callable[[], Original], progress: Progress
) -> Report:
    """Score the package in `package` and compare it with its original. Holds one of them at a time."""
    if is_of(manifest, EncoderFacts):
        with tempfile.TemporaryFile(dir=package) as ours:
            scored = encoder_verify.score_package(package, manifest, ours, progress)
            original = open_original()
            expected = (_expected(original, encoding, manifest.model) for encoding in scored.sequences)
            quality = encoder_verify.quality_of(manifest, scored, ours, expected)
        progress("original", 1, 1)
        return encoder_verify.report_of(manifest, quality)
    with tempfile.TemporaryFile(dir=package) as ours, tempfile.TemporaryFile(dir=package) as theirs:
        texts, sources = _score_package(package, manifest, ours, progress)
        rows = write_logits(
            theirs,
            texts.sequences,
            map(open_original().logits, texts.sequences, sources),
            partial(progress, "original"),
        )
        comparison = compared(
            texts, ours, manifest.vocab_size, lambda start, stop: read_slice(theirs, rows, start, stop), progress
        )
    assert is_of(manifest, DecoderFacts) or is_of(manifest, EncoderDecoderFacts)
    return report_of(manifest, texts, comparison)


def _expected(original: Original, encoding: Encoding, facts: EncoderFacts) -> dict[str, FloatArray]:
    """What the package's outputs are compared with: of a sentence encoder, the vector of the text."""
    outputs = original.outputs(encoding)
    if facts.embedding is None:
        return dict(outputs)
    return {"sentence_embedding": pooled(outputs["last_hidden_state"], facts.embedding.poolings)}


def _score_package(
    package: Path, manifest: Manifest, scratch: IO[bytes], progress: Progress
) -> tuple[ScoredTexts, Sequence[TokenArray | None]]:
    """The texts, and of each the source that it is a target of, where the model has sources."""
    if is_of(manifest, EncoderDecoderFacts):
        pairs, texts = encoder_decoder_verify.score_package(package, manifest, scratch, progress)
        return texts, [pair.source for pair in pairs]
    texts = decoder_verify.score_package(package, manifest, scratch, progress)
    return texts, [None] * len(texts.sequences)
