"""Decoded text without the spaces before punctuation: whole, and in pieces."""

from __future__ import annotations

import random

from transformers import PreTrainedTokenizerBase

from edgellm.text.clean_up import CleanUp, clean_up

PIECES = [
    " .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're", " ", "  ", "a", "'", ".", "do", "n", "t", "m",
    "v", "e", "r", " n", " '",
]  # fmt: skip


def test_clean_up_is_that_of_transformers() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choices(PIECES, k=12))
        assert clean_up(text) == PreTrainedTokenizerBase.clean_up_tokenization(text)


def test_pieces_add_up_to_the_clean_text() -> None:
    rng = random.Random(1)
    for _ in range(20000):
        pieces = ["".join(rng.choices(PIECES, k=rng.randint(0, 3))) for _ in range(rng.randint(0, 8))]
        clean = CleanUp()
        found = "".join(map(clean.add, pieces)) + clean.flush()
        assert found == clean_up("".join(pieces)), pieces


def test_what_cannot_change_any_more_is_not_held_back() -> None:
    clean = CleanUp()
    assert [clean.add(piece) for piece in ("Hello", " world", " .", " It", " '", "s", " fine")] == [
        "Hello", "", " world", ".", " It", "", "'s",
    ]  # fmt: skip
    assert clean.flush() == " fine"
