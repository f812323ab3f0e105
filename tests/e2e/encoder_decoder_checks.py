"""What the tests of encoder-decoders share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import edgellm
from comparison import Expected
from encoder_decoder_families import BY_NAME, FAMILIES

LOGITS_TOLERANCE = 2e-5  # largest difference over largest magnitude
NAMES = [family.name for family in FAMILIES]
REPRESENTATIVE = ["t5", "marian"]

Reference = Callable[[str], Any]
Load = Callable[..., edgellm.EncoderDecoderModel]


def assert_same(found: Sequence[edgellm.Generation], expected: Sequence[Expected]) -> None:
    for generation, wanted in zip(found, expected, strict=True):
        assert [s.tokens for s in generation.sequences] == wanted.tokens
        if wanted.scores is not None:
            scores = [s.score for s in generation.sequences]
            assert scores == pytest.approx(wanted.scores, rel=2e-5, abs=2e-5)


def start_of(name: str) -> int:
    return int(BY_NAME[name].config().decoder_start_token_id)
