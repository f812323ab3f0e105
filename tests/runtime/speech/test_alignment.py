"""When tokens are said, and what words they are, beside transformers'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.whisper.generation_whisper import _dynamic_time_warping
from transformers.models.whisper.tokenization_whisper import _combine_tokens_into_words

from edgellm.speech.alignment import aligned, path, token_positions
from edgellm.speech.words import words_of


@given(rows=st.integers(1, 12), columns=st.integers(1, 40), seed=st.integers(0, 999), steps=st.integers(1, 9))
def test_the_cheapest_path(rows: int, columns: int, seed: int, steps: int) -> None:
    """Costs of few values, so that many paths are alike; and no values, where a window has one token."""
    costs = np.random.default_rng(seed).integers(0, steps, (rows, columns)) / 4.0
    for matrix in (costs, np.full((1, columns), np.nan)):
        text, time = _dynamic_time_warping(matrix)
        expected = [time[text == row][0] for row in range(len(matrix))]
        np.testing.assert_array_equal(path(matrix), expected)


def test_heads_are_normalized_and_smoothed() -> None:
    import torch
    from transformers.models.whisper.generation_whisper import _median_filter

    weights = np.random.default_rng(1).dirichlet(np.ones(50), (3, 9)).astype(np.float32)
    for positions in (50, 4, 3, 1):
        given = torch.tensor(weights[..., :positions])
        scaled = (given - given.mean(dim=-2, keepdim=True)) / given.std(dim=-2, keepdim=True, unbiased=False)
        expected = _median_filter(scaled[None], 7)[0].mean(dim=0)
        np.testing.assert_allclose(aligned(weights[..., :positions]), expected.numpy(), atol=2e-6)
    assert token_positions(weights).shape == (9,)


@pytest.mark.parametrize("shape", [(2, 0, 5), (2, 4, 0)])
def test_what_is_not_there_begins_at_once(shape: tuple[int, ...]) -> None:
    assert token_positions(np.zeros(shape, np.float32)).tolist() == [0] * shape[1]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Every byte, and some longer pieces."""
    bytes_of = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {token: i for i, token in enumerate(sorted(bytes_of))}
    merges = [("\u0120", "a"), ("b", "c"), ("\u00c3", "\u00a9"), (".", "."), ("\u0120", '"')]
    for one, two in merges:
        vocabulary[one + two] = len(vocabulary)
    model = tokenizers.models.BPE(vocab=vocabulary, merges=merges)
    made = tokenizers.Tokenizer(model)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>"])
    return hf.WhisperTokenizerFast(tokenizer_object=made, **dict.fromkeys(("eos_token", "unk_token"), "<|endoftext|>"))


TEXTS = st.text(st.sampled_from(" abcé\"'.,!?:(-[)\n日本\u3002\ufffd"), max_size=14)


@settings(deadline=None)
@given(text=TEXTS, cut=st.integers(0, 3), spaced=st.booleans())
def test_words(text: str, cut: int, spaced: bool, tokenizer: Any) -> None:
    """Also of texts that end within a character."""
    tokens = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids[: -cut or None]
    try:
        words, _, places = _combine_tokens_into_words(tokenizer, list(tokens), "english" if spaced else "chinese")
    except IndexError:  # transformers 4.57 looks behind the end of a text that ends so
        return
    spans = [(float(i), i + 0.5) for i in range(len(tokens))]
    found = words_of(tokens, spans, lambda part: tokenizer.decode(part, decode_with_timestamps=True), spaced=spaced)
    assert [word.text for word in found] == words
    assert [(word.start, word.end) for word in found] == [(float(p[0]), p[-1] + 0.5) for p in places]
