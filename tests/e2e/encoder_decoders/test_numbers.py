"""Logits and scores of encoder-decoder packages against transformers on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from comparison import relative
from encoder_decoder_checks import LOGITS_TOLERANCE, NAMES, REPRESENTATIVE, Load, Reference, assert_same, start_of
from encoder_decoder_families import EOS, hf_generate, reference_logits, sources


@pytest.mark.parametrize("name", NAMES)
def test_logits(name: str, reference: Reference, load: Load) -> None:
    for source, target in [(sources(19)[0], sources(30, seed=1)[0]), (sources(40)[0], sources(2, seed=2)[0])]:
        expected = reference_logits(reference(name), source, target)
        assert relative(load(name).logits(source, target), expected) < LOGITS_TOLERANCE


# Of logits, root mean square over root mean square. Weights are random: real ones are easier.
PRECISIONS = {"fp16": 2e-3, "int8": 0.07, "int4": 0.75}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions(name: str, precision: str, reference: Reference, load: Load) -> None:
    source, target = sources(29)[0], sources(24, seed=1)[0]
    expected = reference_logits(reference(name), source, target)
    found = load(name, precision).logits(source, target)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < PRECISIONS[precision]


def test_distances_beyond_the_last_bucket(reference: Reference, load: Load) -> None:
    source, target = sources(70)[0], sources(90, seed=1)[0]
    expected = reference_logits(reference("t5"), source, target)
    assert relative(load("t5").logits(source, target), expected) < LOGITS_TOLERANCE


@pytest.mark.parametrize("name", ["longt5", "longt5-global"])
def test_sources_of_many_blocks(name: str, reference: Reference, load: Load) -> None:
    """Of texts that fill their last block, that do not, and that have not one, in one batch."""
    rows = sources(160, 6, 96, 3, 121)
    assert_same(load(name).generate(rows, max_new_tokens=5), hf_generate(reference(name), rows, max_new_tokens=5))
    expected = reference_logits(reference(name), rows[0], rows[2][:20])
    assert relative(load(name).logits(rows[0], rows[2][:20]), expected) < LOGITS_TOLERANCE


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_score(name: str, reference: Reference, load: Load) -> None:
    source, target = sources(16)[0], np.array([start_of(name), 7, 8, 9, EOS])
    expected = torch.tensor(reference_logits(reference(name), source, target)).log_softmax(-1)
    score = load(name).score(source, target)
    assert score.logprobs == pytest.approx([float(expected[i, t]) for i, t in enumerate(target[1:])], abs=2e-4)
    assert load(name).score("source", "target").tokens[0] == start_of(name)


def test_t5_has_no_longest_source(load: Load, reference: Reference) -> None:
    rows = sources(300)
    assert_same(load("t5").generate(rows, max_new_tokens=5), hf_generate(reference("t5"), rows, max_new_tokens=5))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_embedding_is_stored_once(precision: str, package: Callable[..., Path]) -> None:
    """The decoder's graph reads the encoder's file."""
    files = {path.name: path.read_bytes() for path in package("t5", precision).iterdir()}
    assert b"encoder_model.onnx.data" in files["decoder_model.onnx"]
    apart = package("marian-apart", precision) / "decoder_model.onnx"
    assert b"encoder_model.onnx.data" not in apart.read_bytes()
