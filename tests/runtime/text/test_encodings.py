"""Encodings cut by us are those that the tokenizers library cuts itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from edgellm.errors import InputError, OptionError
from edgellm.text.encodings import Encoding, from_tokenizer, truncated, windows

TEXT = "fable abide cab decade"
PAIR = "bad cafe faded beef acid dad abed feed babe"


def word_pieces() -> Tokenizer:
    letters = "abcdefi"
    vocab = ["[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters), "bad", "##de", "##ed"]
    tokenizer = Tokenizer(models.WordPiece(vocab={token: i for i, token in enumerate(vocab)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def byte_pieces() -> Tokenizer:
    """As RoBERTa's: offsets without the space before a word, two separators between the texts."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<s>", "</s>", *letters, "ad", "Ġb"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("a", "d"), ("Ġ", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=True)
    return tokenizer


def encode(tokenizer: Tokenizer, text: str, pair: str | None = None) -> Encoding:
    return from_tokenizer(tokenizer.encode(text, pair))


def as_lists(encoding: Encoding) -> list[Any]:
    return [getattr(encoding, name).tolist() for name in encoding.__dataclass_fields__]


@pytest.mark.parametrize("make", [word_pieces, byte_pieces])
@pytest.mark.parametrize("truncation", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("max_length", [28, 35, 40, 200])
@pytest.mark.parametrize(("text", "pair"), [(TEXT, PAIR), (PAIR, TEXT)])
@pytest.mark.parametrize("side", ["right", "left"])
def test_truncated_pairs(make: Any, truncation: Any, max_length: int, text: str, pair: str, side: Any) -> None:
    encoding = encode(make(), text, pair)
    cutting = make()
    cutting.enable_truncation(max_length, strategy=truncation, direction=side)
    try:
        expected = encode(cutting, text, pair)
    except Exception:
        with pytest.raises(OptionError, match=r"cannot be cut to \d+ tokens"):
            truncated(encoding, max_length, truncation, at=side)
    else:
        assert as_lists(truncated(encoding, max_length, truncation, at=side)) == as_lists(expected)


@pytest.mark.parametrize("make", [word_pieces, byte_pieces])
@pytest.mark.parametrize("max_length", [3, 9, 200])
def test_truncated_text(make: Any, max_length: int) -> None:
    cutting = make()
    cutting.enable_truncation(max_length)
    assert as_lists(truncated(encode(make(), PAIR), max_length)) == as_lists(encode(cutting, PAIR))


@pytest.mark.parametrize("make", [word_pieces, byte_pieces])
@pytest.mark.parametrize("pair", [PAIR, None])
@pytest.mark.parametrize("max_length", [20, 26, 27, 30, 33])
@pytest.mark.parametrize("stride", [0, 1])
def test_windows(make: Any, pair: str | None, max_length: int, stride: int) -> None:
    cutting = make()
    text = "bad cab" if pair else TEXT + " " + PAIR
    cutting.enable_truncation(max_length, stride=stride, strategy="only_second" if pair else "longest_first")
    whole = cutting.encode(text, pair)
    expected = [from_tokenizer(piece) for piece in (whole, *whole.overflowing)]
    found = windows(encode(make(), text, pair), 1 if pair else 0, max_length, stride)
    assert len(found) == len(expected) > 1
    for ours, theirs in zip(found, expected, strict=True):
        # With RoBERTa's tokenizers the library leaves the space before a word to the first token of a later window.
        first = np.flatnonzero(ours.texts == (1 if pair else 0))[0]
        assert ours.offsets[first, 0] - theirs.offsets[first, 0] in ((0, 1) if make is byte_pieces else (0,))
        ours.offsets[first] = theirs.offsets[first]
        assert as_lists(ours) == as_lists(theirs)


def test_every_window_width_ends_where_the_library_ends() -> None:
    for length in range(1, 30):
        for max_length in range(4, 12):
            for stride in range(max_length - 2):
                text = "a " * length
                cutting = word_pieces()
                cutting.enable_truncation(max_length, stride=stride)
                whole = cutting.encode(text)
                expected = [piece.ids for piece in (whole, *whole.overflowing)]
                found = windows(encode(word_pieces(), text), 0, max_length, stride)
                assert [window.ids.tolist() for window in found] == expected


def test_spans_of_words() -> None:
    encoding = encode(word_pieces(), "bad cab", "abide bad fable")
    library = word_pieces().encode("bad cab", "abide bad fable")
    for i in np.flatnonzero(encoding.texts == 1):
        assert encoding.word_span(i, i) == library.word_to_chars(library.token_to_word(int(i)), sequence_index=1)
    assert encoding.word_span(0, 3) is None


def test_windows_without_room() -> None:
    encoding = encode(word_pieces(), TEXT, PAIR)
    with pytest.raises(InputError, match="no room for a piece of the long text"):
        windows(encoding, 1, 15, 0)
    with pytest.raises(OptionError, match="the stride is 7 tokens, expected 0 to 6"):
        windows(encode(word_pieces(), PAIR), 0, 9, 7)
