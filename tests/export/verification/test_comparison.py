"""Two models' logits compared slice by slice: the numbers are those of comparing them whole, and text is never cut."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from edgellm.package.manifest import (
    CacheLayout,
    CrossCacheLayout,
    DecoderFacts,
    EncoderDecoderFacts,
    EncoderFacts,
    GraphFile,
    Manifest,
    Rope,
    TokenIds,
    Weights,
)
from edgellm.types import DoubleArray
from edgellm_export.float_run.divergence import BLOCK, SLICE, Comparison
from edgellm_export.verification import decoder, encoder, encoder_decoder
from edgellm_export.verification.generation import ScoredTexts, compared, read_slice, write_logits

LARGE = 262_144
WEIGHTS = Weights("int8", "blockwise-64-symmetric", tied_embedding=True)


def log_softmax(logits: DoubleArray) -> DoubleArray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


@pytest.mark.parametrize("vocab", [5, BLOCK, SLICE + 3 * BLOCK + 1])
def test_a_comparison_by_slices_is_that_of_whole_logits(vocab: int) -> None:
    rng = np.random.default_rng(0)
    p, q = rng.normal(0, 5, (2, 7, vocab)).astype(np.float32)
    targets = np.append(rng.integers(0, vocab, 6), -1)
    found = Comparison(targets)
    for start in range(0, vocab, SLICE):
        found.add(start, p[:, start : start + SLICE], q[:, start : start + SLICE])
    a, b = log_softmax(p.astype(np.float64)), log_softmax(q.astype(np.float64))
    assert found.kl_divergence() == pytest.approx((np.exp(a) * (a - b)).sum(axis=1), abs=1e-9)
    assert found.agreement().tolist() == (p.argmax(axis=1) == q.argmax(axis=1)).tolist()
    losses = [-each[np.arange(6), targets[:6]].mean() for each in (a, b)]
    assert found.perplexity() == pytest.approx(np.exp(losses))


def test_logits_that_come_in_pieces_are_read_back_by_slices() -> None:
    vocab = SLICE + 10
    rng = np.random.default_rng(1)
    texts = [np.arange(9), np.arange(4)]
    logits = rng.normal(0, 1, (13, vocab)).astype(np.float32)
    scratch = io.BytesIO()
    assert write_logits(scratch, texts, [logits[:5], logits[5:9], logits[9:]], lambda done, rows: None) == 13
    assert (read_slice(scratch, 13, SLICE, vocab) == logits[:, SLICE:]).all()
    scored = ScoredTexts(texts, 1, "numbers", "cpu", 1)
    found = compared(scored, scratch, vocab, lambda start, stop: logits[:, start:stop], lambda *step: None)
    assert found.kl_divergence().max() == 0


def manifest(facts: DecoderFacts | EncoderFacts | EncoderDecoderFacts, task: str, context: int) -> Manifest:
    graphs = {"model": GraphFile("model.onnx", (), ())}
    return Manifest(task, "any", "cpu", graphs, facts, WEIGHTS, LARGE, context, TokenIds())  # type: ignore[arg-type]


@pytest.mark.parametrize("context", [40, 100, 256, 32768])
def test_a_thousand_tokens_are_compared_whatever_the_vocabulary(context: int) -> None:
    cache = CacheLayout(2, 2, 8, "float32")
    generates = manifest(DecoderFacts(cache, Rope()), "text-generation", context)
    assert decoder.compared_tokens(generates) >= 1024 + decoder.GREEDY * (decoder.PROMPT + decoder.CONTINUATION)
    assert decoder.text_length(generates) == min(256, context)
    translates = manifest(
        EncoderDecoderFacts(cache, CrossCacheLayout(2, 2, 8, "float32"), None), "text2text-generation", context
    )
    assert encoder_decoder.compared_tokens(translates) >= 1024
    fills = manifest(EncoderFacts(), "fill-mask", context)
    assert encoder.compared_tokens(fills) == 1024
    assert encoder.compared_tokens(replace(fills, vocab_size=30522)) == 2048
