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
STEPWISE = [name for name in NAMES if name.startswith(("t5gemma", "prophetnet"))]  # whose attention is not one operator

Reference = Callable[[str], Any]
Load = Callable[..., edgellm.EncoderDecoderModel]


def assert_same(found: Sequence[edgellm.Generation], expected: Sequence[Expected]) -> None:
    for generation, wanted in zip(found, expected, strict=True):
        assert [s.tokens for s in generation.sequences] == wanted.tokens
        if wanted.scores is not None:
            scores = [s.score for s in generation.sequences]
            assert scores == pytest.approx(wanted.scores, rel=2e-5, abs=2e-5)


def start_of(name: str) -> int:
    config = BY_NAME[name].config()
    return int(config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id)
